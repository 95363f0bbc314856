"""Requests and callers, the same for a message on a topic and for a call over HTTP.

formats         the table of export formats
commands        the values of a command, in JSON or in attributes, checked key by key
requests        deletes and exports as values
request_state   the state of a request, for callers by HTTP
page_uploads    uploads from the search page, as objects and as requests
callers         who may call `search` and `commands`, and what needs no caller
id_tokens       the tokens that identify them
refusals        how both refuse a request

Imports run downwards: handlers, then this package, then `common`.
"""
