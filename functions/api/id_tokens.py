"""Callers of HTTP functions, identified by Google-signed ID tokens."""

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any, Final, Literal

from functions.common.deadline import Deadline, epoch_s

CallerReason = Literal["unauthenticated", "forbidden", "unavailable"]

_ISSUERS: Final = ("accounts.google.com", "https://accounts.google.com")
_TOKEN_LENGTH: Final = 4096
_KNOWN_TOKENS: Final = 1024
_KEYS_S: Final = 3600.0
# Keys are fetched again for an unknown key id, but not sooner after the last time.
_KEYS_AGAIN_S: Final = 60.0
_FETCH_S: Final = 10.0
# After a failed fetch, not sooner. Meanwhile callers are refused at once and do not wait for it.
_FAILED_S: Final = 5.0


class CallerError(Exception):
    """A caller who is refused.

    Args:
        reason: unauthenticated: no token, or an invalid one; forbidden: not on the list of callers;
            unavailable: Google's keys cannot be fetched.
        message: one line for a person.
    """

    def __init__(self, reason: CallerReason, message: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message


class IdTokens:
    """Verifies the `Authorization: Bearer` header; safe to share between threads.

    Args:
        audiences: the audiences that a token may have.
        keys_url: where Google publishes its keys.
    """

    def __init__(self, audiences: tuple[str, ...], keys_url: str) -> None:
        self._audiences = audiences
        self._keys = _Keys(keys_url)
        # By a token's digest: when it expires, and its caller.
        self._known: dict[bytes, tuple[float, tuple[str, ...]]] = {}

    def names(self, authorization: str) -> tuple[str, ...]:
        """The sender of this header: the subject, and the address if it is verified; lower case.

        Raises:
            CallerError: unauthenticated; unavailable.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _TOKEN_LENGTH:
            raise CallerError("unauthenticated", "a Google-signed ID token is needed")
        digest = hashlib.sha256(token.encode()).digest()
        expires, names = self._known.get(digest, (0.0, ()))
        if expires > epoch_s():
            return names
        claims = self._verified(token)
        names = _names(claims)
        if len(self._known) >= _KNOWN_TOKENS:
            self._known.clear()
        self._known[digest] = (claims["exp"], names)
        return names

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
        # The library computes with claims of any type, and reads JSON of any depth.
        except (ValueError, TypeError, RecursionError, exceptions.GoogleAuthError) as error:
            raise CallerError("unauthenticated", "the ID token is not valid") from error
        if claims.get("iss") not in _ISSUERS:
            raise CallerError("unauthenticated", "the ID token is not from Google")
        return claims


def _names(claims: Mapping[str, Any]) -> tuple[str, ...]:
    subject = str(claims.get("sub", "")).lower()
    if claims.get("email_verified") is True:
        return subject, str(claims.get("email", "")).lower()
    return (subject,)


class _Keys:
    """Google's public keys by key id, fetched at first use and again when they are old."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._by_id: Mapping[str, str] = {}
        self._fresh = Deadline(0)
        self._failed = Deadline(0)

    def with_key(self, key_id: str) -> Mapping[str, str]:
        """The keys, with this one if it exists.

        Raises:
            CallerError: unavailable.
        """
        with self._lock:
            is_new_key = key_id not in self._by_id and self._fresh.elapsed_s() >= _KEYS_AGAIN_S
            if is_new_key or not self._fresh.remaining_s():
                self._fetch()
            return self._by_id

    def _fetch(self) -> None:
        if not self._failed.remaining_s():
            keys = _fetched(self._url)
            if keys is not None:
                self._by_id = keys
                self._fresh = Deadline(_KEYS_S)
                return
            self._failed = Deadline(_FAILED_S)
        raise CallerError("unavailable", "the keys of ID tokens cannot be fetched")


def _fetched(url: str) -> dict[str, str] | None:
    """The published keys, fetched like google-auth does: without the service's credentials. None
    if they cannot be fetched."""
    from google.auth import exceptions
    from google.auth.transport import requests

    get: Any = requests.Request
    try:
        response = get()(url, timeout=_FETCH_S)
        if response.status != 200:
            return None
        return dict(json.loads(response.data))
    except (ValueError, TypeError, RecursionError, exceptions.GoogleAuthError):
        return None
