"""One client for each outside system, in the order in which one stands on the other.

credentials        the service's own credentials, and client certificates
statuses           what a status means, 401, 403 and 429 among them, and what becomes of it
transport          HTTP: connections, time limits, the one retry loop
storage_library    how google-cloud-storage is called: through the transport
storage            Cloud Storage: objects are read, written, copied, listed, deleted
json_objects       small JSON objects of the state bucket, each changed at its generation
dicomweb           the DICOM store: STOW-RS, QIDO-RS, WADO-RS, delete, operations
pubsub             Pub/Sub: publishing, over gRPC with the transport's credentials and retry loop

Each failure is one of errors.py; nothing of a server's text is in it.
"""
