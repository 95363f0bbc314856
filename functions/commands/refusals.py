"""Every way in which `commands` refuses a request (the form: api/refusals.py)."""

from typing import Final

from functions.api.refusals import BaseRefusedError

STATUS: Final = {
    # A missing, malformed or unknown key; the message names it.
    "invalid_command": 400,
    # No ID token, or an invalid one.
    "unauthenticated": 401,
    # A caller, a command or a destination that is not on its list.
    "forbidden": 403,
    # No such path, or no such request.
    "not_found": 404,
    "method_not_allowed": 405,
    # The same id with another command, or while the first is being published.
    "conflict": 409,
    # The body is not application/json.
    "unsupported_media_type": 415,
    # This caller sends too many commands.
    "rate_limited": 429,
    # A bug.
    "internal": 500,
    # After the following, the same request can be sent again.
    # The service's own credentials were refused: an operator has to grant a permission.
    "unauthorized": 503,
    # The topic or the state bucket is missing or does not answer.
    "unavailable": 503,
    # Pub/Sub or Cloud Storage asks to come back later.
    "overloaded": 503,
}


class RefusedError(BaseRefusedError):
    """A refused request, with the reasons of this function."""

    STATUS = STATUS
