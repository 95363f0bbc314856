"""One client for each outside system; each file uses those above it.

    credentials.py      the service's own credentials, and client certificates
    statuses.py         what each status means (401, 403, 429 and others), and what it leads to
    transport.py        HTTP: connections, time limits, the one retry loop
    storage_library.py  how google-cloud-storage is called: through the transport
    storage.py          Cloud Storage: objects are read, written, copied, listed, deleted
    json_objects.py     small JSON objects of the state bucket, each changed at its generation
    dicomweb.py         the DICOM store: STOW-RS, QIDO-RS, WADO-RS, delete, operations
    pubsub.py           Pub/Sub: publishing over gRPC, with the transport's credentials and retry
                        loop

Each failure is an error of errors.py, without a server's text.
"""
