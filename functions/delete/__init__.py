"""Deletes studies, series and instances, and waits for the long-running operations.

The files in the order in which data passes:

    handler.py    reads the command or the follow-up message, finds the targets, and continues
                  until the delete has ended
    guards.py     every limit: which stores, how many studies and instances, and how old
    deletion.py   starts operations, polls them, and decides how each ended
    followup.py   the rest of the work, as in a follow-up message
    report.py     the outcomes of targets, of a query and of a dry run
"""
