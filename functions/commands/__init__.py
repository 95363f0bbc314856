"""The commands of the delete and export functions, for who speaks HTTP.

In the order in which data passes:

    handler.py   the story: a POST is checked, published and answered 202; a GET tells the outcome
    limits.py    which commands a caller may give, and how many in a minute (who may call at all:
                 api/callers.py)
    refusals.py  every way in which a request is refused
"""
