"""store_upload: stores each object of the landing bucket in the DICOM store (docs/store.md).

In the order in which an object passes:

    handler.py         one event, from the message to the published outcome and the source's removal
    delivery.py        what is needed to process an event; memory.py: what this process did lately
    filetype.py        what a file is, by its content
    source.py          its bytes as a stream; nothing incomplete is stored
    instances.py       what is sent: a DICOM file, or metadata with a JPEG; whether the DICOM store
                       has the same (same_metadata.py)
    metadata.py        DICOM JSON, checked against its JPEG (jpeg.py) and completed
    multipart_file.py  metadata and a JPEG in one file, multipart-request.file
    stow.py            one store request and what its answer means (stow_report.py): the table of
                       what is stored, duplicate, conflict or rejected; CONFLICT_POLICY
    pairs.py           `x.json` and `x.jpg` as two objects (pair_names.py, pair_state.py); what
                       happens to one without the other
    archive_upload.py  a zip, tar or tar.gz, until it is done or its time is up
      archive.py           walks through its members, each with the place where it is found again
                           (archive_readers.py: each format; seekable.py: the bytes)
      archive_limits.py    every limit and its check, and what follows for the archive
      archive_pairs.py     which metadata and JPEG in it are a pair
      archive_progress.py  where the next invocation continues, as in a follow-up message
    verdicts.py        the outcome before it is published; which objects go to quarantine, and which
                       do not (refusals.py: the errors that lead there)
    disposition.py     what happens to the object: quarantine (sidecar.py says why), or kept,
                       deleted, moved
"""
