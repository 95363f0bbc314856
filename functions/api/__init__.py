"""Requests and callers, the same for a message on a topic and for a call over HTTP.

    formats.py        the table of export formats
    commands.py       the values of a command, in JSON or in attributes, checked key by key
    requests.py       deletes and exports as values
    request_state.py  the state of a request, for callers by HTTP
    page_uploads.py   uploads from the search page, as objects and as requests
    callers.py        who may call `search` and `commands`, and what needs no caller
    id_tokens.py      the tokens that identify them
    refusals.py       how both refuse a request

Imports run downwards: handlers, then this package, then `common`.
"""
