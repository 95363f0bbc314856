"""Calls the operator's webhooks with outcome records, and keeps what became of requests.

In the order in which data passes:

    handler.py    the story: a record comes in by a webhook's own subscription, a call goes out
    webhooks.py   WEBHOOKS and its secrets, checked when the function starts
    payload.py    the body and the signature, as Standard Webhooks has them
    sender.py     one POST: no redirect, no address that is not public, nothing kept of the answer
    gone.py       webhooks that answered 410, in the state bucket

What became of a request is kept by api/request_state.py, for `GET /requests/ID`.
"""
