"""store_upload: stores each object of the landing bucket in the DICOM store (docs/store.md).

In the order in which an object passes:

    handler          one event, from the message to the published outcome and the source's removal
    delivery, memory what is needed to process an event; what this process did lately
    filetype         what a file is, by its content
    source           its bytes as a stream; nothing incomplete is stored
    instances        what is sent: a DICOM file, or metadata with a JPEG
    metadata, jpeg   DICOM JSON checked against its JPEG, and completed
    multipart_file   the how-to's multipart-request.file
    stow             one store request and what its answer (stow_report) means: the table of what is
                     stored, duplicate, conflict or rejected; CONFLICT_POLICY
    pairs            `x.json` and `x.jpg` as two objects (pair_names, pair_state)
    archive_upload   a zip, tar or tar.gz, until it is done or its time is up
      archive          walks through its members, each with the place where it is found again
                       (archive_readers: each format; seekable: the bytes)
      archive_limits   every limit and its check
      archive_pairs    which metadata and JPEG in it are a pair
      archive_progress where the next invocation continues, as in a follow-up message
    verdict          the outcome before it is published; whether the object goes to quarantine
                     (refusals: the errors that lead there)
    disposition      what happens to the object: quarantine (sidecar says why), or kept, deleted,
                     moved
"""
