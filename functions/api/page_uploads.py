"""Uploads from the search page: the name of the object, and the id of the upload as a request.

The name is random and known only to the uploader, so the outcome can be shown to everyone who knows
the request's id. The path of an upload:

    search/uploading.py      POST /uploads makes a request id and a session for this one object
    the browser              writes the file into the landing bucket by the session's URL
    store/handler.py         stores the object; its outcome record has the id of `request_id` below
    notify/handler.py        keeps that record as the request's state (api/request_state.py)
    search/states.py         GET /requests/ID reads the state: open, or done with the outcome
"""

import re
from typing import Final

# A random UUID (RFC 9562 section 5.4).
RANDOM_ID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FOLDER: Final = "uploads/"  # of the landing bucket; Terraform grants this folder only
PREFIX: Final = "upload-"  # of a request's id, before a UUID; callers name exports and deletes
_NAME: Final = re.compile(FOLDER + RANDOM_ID, re.ASCII)


def object_name(request_id: str) -> str:
    """The object of an upload."""
    return FOLDER + request_id.removeprefix(PREFIX)


def request_id(name: str) -> str:
    """The request id of this object's upload; empty if the page did not upload it."""
    if not _NAME.fullmatch(name):
        return ""
    return PREFIX + name.removeprefix(FOLDER)
