"""Retrieves studies, series or instances and writes them to a bucket.

The files in the order in which data passes (requests and the table of formats are shared:
api/requests.py, api/formats.py):

    handler.py        reads the command or the follow-up message, plans, and starts the slices
    plan.py           finds the instances; packing.py packs them into slices (slices.py)
    state.py          the state of an export in the state bucket, with its state machine
    job.py            the request and the clients of one invocation
    object_slice.py   does a slice in which each instance or frame becomes an object: what is
                      written, and what is there already
    tally.py          the results of its pieces so far; result.py: the result of a slice
    zip_slice.py      does a slice of a zip: one part of it; zip_format.py: the bytes of a zip
    giving_up.py      what becomes of an instance that cannot be retrieved: its failure in the
                      manifest, and when it is given up
    fetch.py          retrieves from the DICOM store (the Accept header: api/requests.py);
                      content.py: the bytes of one object
    writer.py         writes one object, never over another; batches.py passes small ones to threads
    ndjson.py         writes a slice's part of metadata.ndjson
    parts.py          the parts of a zip or of metadata.ndjson, in the bucket of the destination
    ending.py         ends the export: decides which delivery does, so that exactly one outcome is
                      published; compose.py joins the parts, manifest.py writes manifest.json
"""
