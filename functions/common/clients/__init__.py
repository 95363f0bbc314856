"""One client for each outside system, in the order in which one stands on the other.

credentials        the service's own credentials, and client certificates
transport          HTTP: connections, time limits, the one retry loop, what a status means
storage_library    how google-cloud-storage is called: through the transport
storage            Cloud Storage: objects are read, written, copied, listed, deleted
dicomweb           the DICOM store: STOW-RS, QIDO-RS, WADO-RS, delete, operations
pubsub             Pub/Sub: publishing, over gRPC with the transport's credentials and retry loop

Each failure is one of errors.py; nothing of a server's text is in it.
"""
