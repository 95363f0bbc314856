"""Who may ask: callers known by Google-signed ID tokens, each perhaps limited to some data; and
which origins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from functions.api.id_tokens import IdTokens, TokenError
from functions.search.refusals import RefusedError

Fixed = Mapping[str, str]
CORS_METHODS: Final = "GET, HEAD, OPTIONS, POST"
CORS_HEADERS: Final = (
    "accept, authorization, content-type, if-none-match, range, x-serverless-authorization"
)
CORS_EXPOSED: Final = "content-range, content-type, etag, link, retry-after, warning"


@dataclass(frozen=True)
class Caller:
    """Who asks, and the filters that are part of everything they ask."""

    fixed: Fixed = field(default_factory=dict)


EVERYONE: Final = Caller()


class Callers:
    """Checks the `Authorization: Bearer` token against an allow-list.

    Args:
        allowed: fixed filters by e-mail address or subject; empty: everyone whom the platform lets
            through.
        tokens: verifies ID tokens.
    """

    def __init__(self, allowed: Mapping[str, Fixed], tokens: IdTokens) -> None:
        self._allowed = {name.lower(): Caller(fixed) for name, fixed in allowed.items()}
        self._tokens = tokens

    def identify(self, authorization: str) -> Caller:
        """Who sends this header.

        Raises:
            RefusedError: unauthenticated; forbidden, for a caller who is not on the list;
                unavailable, when Google's keys cannot be fetched.
        """
        if not self._allowed:
            return EVERYONE
        try:
            names = self._tokens.names(authorization)
        except TokenError as error:
            raise RefusedError(error.reason, error.message) from error
        for name in names:
            if name in self._allowed:
                return self._allowed[name]
        raise RefusedError("forbidden", "this caller is not on the list")


def cors(origins: tuple[str, ...], origin: str, *, preflight: bool) -> dict[str, str]:
    """The CORS headers for a request from `origin` (empty: none was named).

    A listed origin is answered by its name and may send credentials; `*` lets every origin read,
    without credentials.
    """
    if not origins:
        return {}
    anyone = "*" in origins
    headers = {} if anyone else {"Vary": "Origin"}
    if not origin or not (anyone or origin in origins):
        return headers
    headers["Access-Control-Allow-Origin"] = "*" if anyone else origin
    if not anyone:
        headers["Access-Control-Allow-Credentials"] = "true"
    if preflight:
        headers["Access-Control-Allow-Methods"] = CORS_METHODS
        headers["Access-Control-Allow-Headers"] = CORS_HEADERS
        headers["Access-Control-Max-Age"] = "600"
    else:
        headers["Access-Control-Expose-Headers"] = CORS_EXPOSED
    return headers
