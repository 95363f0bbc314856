"""Reports when a study is complete, and starts the exports that wait for it.

In the order in which data passes:

    handler.py   begin here: a stored record comes in, a `study_complete` record is published
    stored.py    reading a stored record
    memory.py    the studies that this process knows to be open, so that most records need no work
    markers.py   the study's marker in the state bucket: the last count, and the last change
    orders.py    ON_STUDY_COMPLETE: which exports a complete study starts
"""
