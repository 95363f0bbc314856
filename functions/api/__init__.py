"""What is asked for, and by whom: the same for a message on a topic and for a call over HTTP.

formats         the table of export formats
commands        what a command holds, as JSON or in attributes, checked key by key
requests        what a delete or an export asks for
request_state   what became of a request, for who asks by HTTP
page_uploads    what the search page uploads, as objects and as requests
callers         who may call `search` and `commands`, and what needs no caller
id_tokens       the tokens by which they are known
refusals        how both refuse a request

Imports run downwards: handlers, then this package, then `common`.
"""
