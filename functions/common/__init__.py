"""What the functions share, from the request that comes in to the outcome that goes out.

    settings.py    environment variables, checked when the process starts; values.py: their values
    events/        a delivery (runtime.py) becomes a typed message (messages.py); its outcome is
                   published (outcomes.py)
    dicom/         reading files, multipart bodies and DICOM JSON
    clients/       the DICOM store, Cloud Storage and Pub/Sub, over one transport: transport.py has
                   the retries, statuses.py what a status such as 403 leads to
    resources.py   names of stores, studies, series, instances and objects, validated
    jsonvalues.py  JSON from other systems, and its values
    checksum.py    the checksum of Cloud Storage
    errors.py      why something failed: retryable or permanent
    deadline.py    the only clock
    log.py         writing to the log; web.py: HTTP bodies and answers

Imports run downwards: handlers, then api (what is asked for), then events, then clients and dicom,
then the files of this folder.
"""
