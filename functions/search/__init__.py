"""search: people, scripts and viewers read the DICOM store over HTTP (docs/search.md).

In the order in which a request passes:

    handler          entry point: from the request to the answer, whatever goes wrong
    targets          what a path asks for: a search, a retrieve, a file of the page, an export
                     or an upload
    access           which studies a limited caller sees (who may call at all: api/callers.py)
    cors             which origins a browser lets read the answers
    bodies           the parameters of a query by POST, and JSON
    qidors           parameters translated into what the store takes (attributes: its tables)
    searching        one search: small answers as a whole, large ones as a stream
    merging          rows put together from several searches, or from a lower level
    asking           one question to the store, without the attributes that it does not know
    retrieving       WADO-RS, passed through
    upstream         the GET to the store, and what its refusals mean (urls: its URLs replaced)
    pages            a page of rows as JSON or CSV, with the link to the next (spreadsheet: CSV)
    exporting        an export that is asked for; uploading: an upload, which the browser goes on
                     with
    states           what became of both; page: the search page's files
    replies          answers as HTTP; refusals: every way to refuse
"""
