"""Who may ask: callers known by Google-signed ID tokens, each perhaps limited to some data; and
which origins."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.deadline import Deadline, epoch_s
from functions.search.refusals import RefusedError

_ISSUERS: Final = ("accounts.google.com", "https://accounts.google.com")
_TOKEN_LENGTH: Final = 4096
_KNOWN_TOKENS: Final = 1024
_KEYS_S: Final = 3600.0
_KEYS_AGAIN_S: Final = 60.0  # not more often, whatever key ids tokens claim
_FETCH_S: Final = 10.0

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
        audiences: what a token must be made for, one of them.
        keys_url: where Google publishes the keys it signs with.
    """

    def __init__(
        self, allowed: Mapping[str, Fixed], audiences: tuple[str, ...], keys_url: str
    ) -> None:
        self._allowed = {name.lower(): Caller(fixed) for name, fixed in allowed.items()}
        self._audiences = audiences
        self._keys = _Keys(keys_url)
        # By a token's digest: when it expires, and whose it is.
        self._known: dict[bytes, tuple[float, Caller]] = {}

    def identify(self, authorization: str) -> Caller:
        """Who sends this header.

        Raises:
            RefusedError: unauthenticated; forbidden, for a caller who is not on the list;
                unavailable, when Google's keys cannot be fetched.
        """
        if not self._allowed:
            return EVERYONE
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _TOKEN_LENGTH:
            raise RefusedError("unauthenticated", "a Google-signed ID token is needed")
        digest = hashlib.sha256(token.encode()).digest()
        expires, caller = self._known.get(digest, (0.0, EVERYONE))
        if expires > epoch_s():
            return caller
        claims = self._verified(token)
        caller = self._caller(claims)
        if len(self._known) >= _KNOWN_TOKENS:
            self._known.clear()
        self._known[digest] = (claims["exp"], caller)
        return caller

    def _verified(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that Google signed for this function and that is still valid."""
        from google.auth import exceptions
        from google.auth import jwt as untyped

        jwt: Any = untyped
        try:
            key_id = jwt.decode_header(token).get("kid")
            keys = self._keys.with_key(str(key_id))
            claims: Mapping[str, Any] = jwt.decode(
                token, certs=keys, audience=list(self._audiences)
            )
        # The library calculates with claims of any type, and reads JSON of any depth.
        except (ValueError, TypeError, RecursionError, exceptions.GoogleAuthError) as error:
            raise RefusedError("unauthenticated", "the ID token does not verify") from error
        if claims.get("iss") not in _ISSUERS:
            raise RefusedError("unauthenticated", "the ID token is not from Google")
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        names = [str(claims.get("sub", "")).lower()]
        if claims.get("email_verified") is True:
            names.append(str(claims.get("email", "")).lower())
        for name in names:
            if name in self._allowed:
                return self._allowed[name]
        raise RefusedError("forbidden", "this caller is not on the list")


class _Keys:
    """Google's public keys by key id, fetched at first use and again when they are old."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._by_id: Mapping[str, str] = {}
        self._fresh = Deadline(0)
        self._settled = Deadline(0)

    def with_key(self, key_id: str) -> Mapping[str, str]:
        """The keys, this one among them where it exists.

        Raises:
            RefusedError: unavailable.
        """
        with self._lock:
            is_new_key = key_id not in self._by_id and not self._settled.remaining_s()
            if is_new_key or not self._fresh.remaining_s():
                self._by_id = _fetched(self._url)
                self._fresh = Deadline(_KEYS_S)
                self._settled = Deadline(_KEYS_AGAIN_S)
            return self._by_id


def _fetched(url: str) -> dict[str, str]:
    """The keys that are published there, fetched as google-auth itself fetches them: without the
    service's credentials.

    Raises:
        RefusedError: unavailable.
    """
    from google.auth import exceptions
    from google.auth.transport import requests

    get: Any = requests.Request
    try:
        response = get()(url, timeout=_FETCH_S)
        keys = dict(json.loads(response.data))
    except (ValueError, TypeError, RecursionError, exceptions.GoogleAuthError) as error:
        raise RefusedError("unavailable", "the keys of ID tokens cannot be fetched") from error
    if response.status != 200:
        raise RefusedError("unavailable", "the keys of ID tokens cannot be fetched")
    return keys


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
