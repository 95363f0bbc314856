"""Deletes studies, series and instances, and follows the long-running operations to their end.

The files in the order in which data passes:

    handler.py    reads the command or the follow-up message, checks store and number of studies,
                  and leads the delete to its end
    guards.py     how much a delete may take and how old that must be, checked at each step
    deletion.py   starts operations, polls them, and judges how each ended
    followup.py   what is left to do, as a follow-up message carries it
    report.py     the outcomes of targets, of a query and of a dry run
"""
