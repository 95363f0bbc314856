"""Every way in which the search function refuses a request (the form: api/refusals.py)."""

from typing import Final

from functions.api.refusals import BaseRefusedError

STATUS: Final = {
    # An encoded slash, `..`, a control character, an absolute URL, too long.
    "invalid_path": 400,
    # A UID in the path is malformed.
    "invalid_uid": 400,
    # Unknown, not searchable, or with an impossible value; `parameter` names it.
    "invalid_parameter": 400,
    # A header that is passed on has control characters or is too long.
    "invalid_header": 400,
    # A query or an export request by POST that cannot be read.
    "invalid_body": 400,
    # The DICOM store refused it.
    "rejected": 400,
    # No token, or an invalid one.
    "unauthenticated": 401,
    # A caller, a parameter, an origin or a destination that is not on its list.
    "forbidden": 403,
    # SEARCH_RETRIEVE is off.
    "retrieve_disabled": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    # No type in Accept is supported.
    "not_acceptable": 406,
    # The store is working on that resource.
    "conflict": 409,
    "gone": 410,
    # Of the request's body.
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "rate_limited": 429,
    # A bug.
    "internal": 500,
    # The service's own credentials were refused.
    "unauthorized": 502,
    # No answer from the DICOM store or a bucket, or a malformed one; a bucket is missing.
    "unavailable": 502,
    # The DICOM store, Cloud Storage or Pub/Sub asks to come back later.
    "overloaded": 503,
    # The DICOM store took too long.
    "deadline_exceeded": 504,
}


class RefusedError(BaseRefusedError):
    """A refused request, with the reasons of this function."""

    STATUS = STATUS
