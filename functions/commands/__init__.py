"""The commands of the delete and export functions, for who speaks HTTP.

In the order in which data passes:

    handler.py   the story: a POST is checked, published and answered 202; a GET tells the outcome
    callers.py   who may give which commands, and how many in a minute
    answers.py   every way in which a request is refused
"""
