"""Retrieves studies, series or instances and writes them to a bucket.

The files in the order in which data passes:

    handler.py        reads the command or the follow-up message and leads the export to its end
    plan.py           finds the instances and cuts them into slices
    slices.py         a slice and what it consists of
    state.py          where an export stands, in the state bucket: the state machine is drawn there
    fetch.py          retrieves from the DICOM store; content.py: the bytes of one object
    object_slice.py   does a slice of which each instance or frame becomes an object
    batches.py        hands small objects to threads; writer.py: writes each object once
    zip_slice.py      does a slice of a zip: one part of it; zip_format.py: the bytes of a zip
    ndjson.py         writes a slice's part of metadata.ndjson
    compose.py        joins the parts of all slices
    manifest.py       writes manifest.json at the end
"""
