"""store_upload: each object of the landing bucket into the DICOM store (docs/store.md).

In the order in which an object passes:

    handler          one event, from the message to the published outcome and the source's removal
    delivery, memory what an event is handled with; what this process did lately
    filetype         what a file is, by its content
    source           its bytes as a stream; nothing incomplete is sent
    instances        what is sent: a DICOM file, or metadata with a JPEG
    metadata, jpeg   DICOM JSON checked against its JPEG, and completed
    multipart_file   the how-to's multipart-request.file
    stow             one store request and what its answer (stow_report) means: the table of what is
                     stored, duplicate, conflict or rejected; CONFLICT_POLICY
    pairs            `x.json` and `x.jpg` as two objects (pair_names, pair_state)
    archive_upload   a zip, tar or tar.gz, until it is done or its time is up
      archive          walks through its members (archive_readers: each format; seekable: the bytes)
      archive_limits   every limit and its check
      archive_pairs    which metadata and JPEG in it belong together
      archive_progress where it goes on in the next invocation, as a follow-up message carries it
    verdict          the outcome before it is published; whether the object goes to quarantine
                     (refusals: the errors that lead there)
    disposition      where the object goes in the end: quarantine (sidecar says why), or kept,
                     deleted, moved
"""
