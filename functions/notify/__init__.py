"""Calls the operator's webhooks with outcome records, and keeps the outcomes of requests.

In the order in which data passes:

    handler.py    begin here: a record comes by a webhook's own subscription, and a call is sent
    webhooks.py   WEBHOOKS and its secrets, checked when the function starts
    payload.py    the body and the signature of Standard Webhooks
    sender.py     one POST: no redirect, only public addresses, nothing of the answer is kept
    gone.py       webhooks that answered 410, in the state bucket

The state of a request is kept by api/request_state.py, for `GET /requests/ID`.
"""
