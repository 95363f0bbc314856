"""search: people, scripts and viewers read the DICOM store over HTTP (docs/search.md).

In the order in which a request passes:

    handler.py     entry point: from the request to the answer or the error
    targets.py     what a path means: a search, a retrieve, a file of the page, an export or an
                   upload
    access.py      which studies a caller sees (who may call at all: api/callers.py)
    cors.py        which origins may read the answers in a browser
    bodies.py      the parameters of a query by POST, and JSON
    qidors.py      parameters translated for the store (attributes.py: its tables)
    searching.py   one search: small answers as a whole, large ones as a stream
    merging.py     rows combined from several searches, or from a lower level
    asking.py      one search of the store, without the attributes that it does not know
    retrieving.py  WADO-RS, passed through
    upstream.py    the GET to the store, and its refusals; urls.py replaces its URLs in answers
    pages.py       a page of rows as JSON or CSV, with the link to the next; spreadsheet.py: CSV
    exporting.py   a requested export; uploading.py: an upload, which the browser continues
    states.py      the state of a requested export or upload
    page.py        the files of the search page
    replies.py     answers as HTTP; refusals.py: every refusal
"""
