"""Delete and export commands over HTTP.

In the order in which data passes:

    handler.py    begin here: the paths, and the answer to each request
    limits.py     which commands a caller may send, and how many in a minute (who may call:
                  api/callers.py)
    command.py    reading and checking a command
    accepting.py  a checked command becomes a request: kept, published once, and shown later
    refusals.py   every way in which a request is refused
"""
