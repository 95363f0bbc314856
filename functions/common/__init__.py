"""What the functions share, from the request that comes in to the outcome that goes out.

settings, values   environment variables, checked when the process starts
events/            a delivery becomes a typed message; what came of it is published
dicom/             what files, multipart bodies and DICOM JSON say
clients/           the DICOM store, Cloud Storage and Pub/Sub, over one transport; what a status
                   such as 403 leads to (clients/statuses.py)
resources          names of stores, studies, series, instances and objects, validated
jsonvalues         JSON that others have sent, and its values
checksum           the checksum of Cloud Storage
errors             why something failed: try again, or never
deadline           the only clock
log, web           what is written to the log, and what is answered over HTTP

Imports run downwards: handlers, then api (what is asked for), then events, then clients and dicom,
then the files of this folder.
"""
