"""The cloud functions. The packages from store to watch are one function each, described in
`__init__.py`:

    store      stores the objects of the landing bucket in the DICOM store
    delete     deletes studies, series and instances
    export     retrieves them and writes them to a bucket
    search     the search page, and QIDO-RS and WADO-RS for callers
    commands   accepts delete and export commands over HTTP
    notify     calls the webhooks, and keeps the outcomes of requests
    watch      reports complete studies
    api        what several of them need of requests and callers
    common     settings, clients, DICOM, events: what all of them need

Imports run downwards: functions, api, common. No function imports another one.
"""
