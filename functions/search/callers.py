"""Who may ask: callers known by Google-signed ID tokens, each perhaps limited to some data; and
which origins."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.deadline import Deadline, epoch_s
from functions.search.answers import RefusedError
from functions.search.relay import fetch

_ISSUERS: Final = ("accounts.google.com", "https://accounts.google.com")
_TOKEN_LENGTH: Final = 4096
_CERTIFICATES_S: Final = 3600.0
_CERTIFICATES_AGAIN_S: Final = 60.0  # not more often, whatever key ids tokens claim
_KNOWN_TOKENS: Final = 1024

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


class Callers:
    """Checks the `Authorization: Bearer` token against an allow-list.

    Args:
        allowed: fixed filters by e-mail address or subject; empty: everyone whom the platform lets
            through.
        audiences: what a token must be made for, one of them.
        certificates_url: where Google publishes the keys it signs with.
    """

    def __init__(
        self, allowed: Mapping[str, Fixed], audiences: tuple[str, ...], certificates_url: str
    ) -> None:
        self._allowed = {name.lower(): fixed for name, fixed in allowed.items()}
        self._audiences = audiences
        self._certificates = _Certificates(certificates_url)
        self._known: dict[bytes, tuple[float, Caller]] = {}

    def identify(self, authorization: str) -> Caller:
        """Who sends this header.

        Raises:
            RefusedError: unauthenticated; forbidden, for a caller who is not on the list;
                unavailable, when Google's keys cannot be had.
        """
        if not self._allowed:
            return Caller()
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _TOKEN_LENGTH:
            raise RefusedError("unauthenticated", "a Google-signed ID token is needed")
        digest = hashlib.sha256(token.encode()).digest()
        expires, caller = self._known.get(digest, (0.0, Caller()))
        if expires > epoch_s():
            return caller
        claims = self._verified(token)
        caller = self._caller(claims)
        if len(self._known) >= _KNOWN_TOKENS:
            self._known.clear()
        self._known[digest] = (float(claims["exp"]), caller)
        return caller

    def _verified(self, token: str) -> Mapping[str, Any]:
        from google.auth import exceptions
        from google.auth import jwt as untyped

        jwt: Any = untyped

        try:
            key_id = jwt.decode_header(token).get("kid")
            certificates = self._certificates.with_key(str(key_id))
            claims: Mapping[str, Any] = jwt.decode(
                token, certs=certificates, audience=list(self._audiences)
            )
        except (ValueError, exceptions.GoogleAuthError) as error:
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
                return Caller(self._allowed[name])
        raise RefusedError("forbidden", "this caller is not on the list")


class _Certificates:
    """Google's public keys by key id, fetched when first needed and again when they are old."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._keys: Mapping[str, str] = {}
        self._fresh = Deadline(0)
        self._settled = Deadline(0)

    def with_key(self, key_id: str) -> Mapping[str, str]:
        """The keys, this one among them where it exists.

        Raises:
            RefusedError: unavailable.
        """
        with self._lock:
            if not self._fresh.remaining_s() or (
                key_id not in self._keys and not self._settled.remaining_s()
            ):
                try:
                    self._keys = dict(json.loads(fetch(self._url)))
                except (ValueError, TypeError) as error:
                    raise RefusedError(
                        "unavailable", "the keys of ID tokens make no sense"
                    ) from error
                self._fresh, self._settled = (
                    Deadline(_CERTIFICATES_S),
                    Deadline(_CERTIFICATES_AGAIN_S),
                )
            return self._keys


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
