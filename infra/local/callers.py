"""Who may call a service of the local stack: this machine's own programs and pages.

Every web page that is open in a browser on this machine can send requests to a loopback port. A
page of another site can send plain POST requests (recognised by `Origin`), or have its own host
name resolve to 127.0.0.1 and then also read the answers (DNS rebinding, recognised by `Host`).
Programs send no `Origin`, and a `Host` of this machine.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::\d{1,5})?")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class Callers:
    """Which `Host` and `Origin` headers a service accepts.

    Args:
        listens_on: the address that the service is bound to. If it is not a loopback address, it
            is accepted as Host too; with `0.0.0.0` and `::` every address is accepted, because a
            page cannot make an address resolve to another one.
        hosts: more names for the service, without a port.
        origins: more web origins whose pages may call it; `*` accepts every origin.
    """

    def __init__(
        self,
        listens_on: str = LOOPBACK,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
    ) -> None:
        self._hosts = {name.lower() for name in (listens_on, *hosts)}
        self._any_address = listens_on in ("0.0.0.0", "::", "")
        self._origins = frozenset(origins)

    def refusal(self, host: str, origin: str) -> str:
        """Why a request with these headers is refused; empty when it is not.

        A missing header is an empty text. Browsers always send `Host`, and always send `Origin`
        when a page of another site could change something.
        """
        if host and not self._takes_host(host):
            return "The Host header does not name this machine."
        if origin and not self._takes_origin(origin):
            return "Pages of other sites may not call this service."
        return ""

    def _takes_host(self, authority: str) -> bool:
        name = _name(authority)
        if _is_loopback(name) or name in self._hosts:
            return True
        return self._any_address and _address(name) is not None

    def _takes_origin(self, origin: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        scheme, _, authority = origin.partition("://")
        return scheme in ("http", "https") and _is_loopback(_name(authority))


class Guard:
    """A WSGI application that answers 403 to callers from elsewhere.

    Args:
        application: serves the allowed requests.
        callers: which headers are accepted.
        excused: whether a request from a page of another site is served nevertheless.
    """

    def __init__(
        self,
        application: WSGIApp,
        callers: Callers,
        excused: Callable[[Environ], bool] = lambda _environ: False,
    ) -> None:
        self._application = application
        self._callers = callers
        self._excused = excused

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        origin = environ.get("HTTP_ORIGIN", "")
        if origin and self._excused(environ):
            origin = ""
        reason = self._callers.refusal(environ.get("HTTP_HOST", ""), origin)
        if not reason:
            return self._application(environ, start_response)
        body = refused(reason)
        headers = [
            ("Content-Type", "application/json; charset=UTF-8"),
            ("Content-Length", str(len(body))),
        ]
        start_response("403 Forbidden", headers)
        return [body]


def refused(reason: str) -> bytes:
    """The body of a 403, in the shape of Google's APIs."""
    error = {"code": 403, "message": reason, "status": "PERMISSION_DENIED"}
    return json.dumps({"error": error}).encode()


def _name(authority: str) -> str:
    """The host of `host:port`, in lower case, without brackets; empty if the text is malformed."""
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        return ""
    return match[1].strip("[]").lower().removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own (RFC 6761 section 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback
