"""Retrieves studies, series or instances and writes them to a bucket.

The files in the order in which data passes (what is asked for, and the table of formats, are
shared: api/requests.py, api/formats.py):

    handler.py        reads the command or the follow-up message, plans, and gets the slices done
    plan.py           finds the instances; packing.py packs them into slices (slices.py)
    state.py          where an export stands, in the state bucket: the state machine is drawn there
    object_slice.py   does a slice of which each instance or frame becomes an object; job.py: with
                      what; tally.py: what became of each
    zip_slice.py      does a slice of a zip: one part of it; zip_format.py: the bytes of a zip
    giving_up.py      when a slice goes on without what cannot be retrieved
    fetch.py          retrieves from the DICOM store; content.py: the bytes of one object
    writer.py         writes each object once; batches.py hands small ones to threads
    ndjson.py         writes a slice's part of metadata.ndjson
    ending.py         ends the export: decides which delivery does, so that exactly one outcome is
                      published; compose.py joins the parts, manifest.py writes manifest.json
"""
