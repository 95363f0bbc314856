"""Every way in which `commands` refuses a request (the shape of it: api/refusals.py)."""

from typing import Final

from functions.api.refusals import RefusalError

STATUS: Final = {
    "invalid_command": 400,  # a missing, malformed or unknown key; the message names it
    "unauthenticated": 401,  # no ID token, or an invalid one
    "forbidden": 403,  # a caller, a command or a destination that is not on its list
    "not_found": 404,  # no such path, or no such request
    "method_not_allowed": 405,
    "conflict": 409,  # the same id with another command, or while the first is being published
    "unsupported_media_type": 415,  # the body is not application/json
    "rate_limited": 429,
    "internal": 500,  # a bug
    "unavailable": 503,  # Pub/Sub or the state bucket does not answer; nothing was published
}


class RefusedError(RefusalError):
    """A refused request."""

    STATUS = STATUS
