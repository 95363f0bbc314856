"""Calls the operator's webhooks with outcome records, and keeps what became of requests.

In the order in which data passes:

    handler.py    the story: a record comes in by a webhook's own subscription, a call goes out
    webhooks.py   WEBHOOKS and its secrets, checked when the function starts
    payload.py    the body and the signature, as Standard Webhooks has them
    sender.py     one POST: no redirect, no address that is not public, nothing kept of the answer
    gone.py       webhooks that answered 410, in the state bucket
    requests.py   what became of a request, in the state bucket, for `GET /requests/ID`
"""
