"""Delete and export commands over HTTP.

In the order in which data passes:

    handler.py   begin here: a POST is checked, published and answered 202; a GET shows the state
    limits.py    which commands a caller may send, and how many in a minute (who may call:
                 api/callers.py)
    refusals.py  every way in which a request is refused
"""
