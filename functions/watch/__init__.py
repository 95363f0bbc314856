"""Says when a study is complete, and gives the orders that wait for that.

In the order in which data passes:

    handler.py   the story: a stored record comes in, a `study_complete` record goes out
    stored.py    a stored record as this function reads it
    memory.py    which studies this process knows to be open, so that most records cost nothing
    markers.py   the study's marker in the state bucket: what was counted last, and when
    orders.py    ON_STUDY_COMPLETE: which exports a complete study asks for
"""
