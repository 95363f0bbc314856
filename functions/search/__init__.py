"""search: people, scripts and viewers read the DICOM store over HTTP (docs/search.md).

In the order in which a request passes:

    handler          entry point: from the request to the answer or the error; the limits of its
                     caller
    targets          what a path means: a search, a retrieve, a file of the page, an export or an
                     upload
    access           which studies a limited caller may retrieve (who may call at all:
                     api/callers.py)
    cors             which origins may read the answers in a browser
    bodies           the parameters of a query by POST, and JSON
    qidors           parameters translated for the store (attributes: its tables), with the limits
                     of the caller
    searching        one search: small answers as a whole, large ones as a stream
    merging          rows combined from several searches, or from a lower level
    asking           one search of the store, without the attributes that it does not know
    retrieving       WADO-RS, passed through
    upstream         the GET to the store, and its refusals (urls: its URLs replaced)
    pages            a page of rows as JSON or CSV, with the link to the next (spreadsheet: CSV)
    exporting        a requested export; uploading: an upload, which the browser continues
    states           the state of both; page: the search page's files
    replies          answers as HTTP; refusals: every refusal
"""
