"""One POST to an operator's URL.

No credentials, no cookies, no proxy and no redirect. The address is checked on the connection,
because a name can change between a look-up and a connection. Only the status of the answer is kept.
"""

import contextlib
import ipaddress
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from functions.common.deadline import Deadline
from functions.common.errors import RetryableError

_TIMEOUT_S: Final = 10.0
_ANSWER_BYTES: Final = 4096
_CONNECTIONS: Final = 64
# socket.SHUT_RDWR. `socket` is not imported, because in functions/ only libraries make connections.
_BOTH_WAYS: Final = 2
_FAILURES: Final = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
# Instance metadata, which returns credentials; never a webhook, whatever the settings allow.
_METADATA: Final = (
    ipaddress.ip_address("169.254.169.254"),
    ipaddress.ip_address("fd20:ce::254"),
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are IPv4

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefusedError(OSError):
    """The name resolves to an address that webhooks must not reach."""


class Sender:
    """Sends webhooks over kept-alive connections; safe to share between threads.

    Args:
        private: whether addresses of private networks and of this machine may be called.
    """

    def __init__(self, *, private: bool) -> None:
        self._adapter = _Adapter(private)
        environment = requests.Session().merge_environment_settings(
            url="",
            proxies={},
            stream=True,
            verify=None,
            cert=None,
        )
        # The CA certificates of REQUESTS_CA_BUNDLE, else those of requests.
        self._verify = environment["verify"] or True

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: Deadline,
    ) -> int:
        """Send once; returns the status of the answer. A call takes at most _TIMEOUT_S, and the
        look-up of its name, which only the resolver's own time limit ends.

        Raises:
            RetryableError: unavailable, when there is no answer; deadline_exceeded.
        """
        request = requests.Request("POST", url, dict(headers), data=body)
        timeout_s = deadline.timeout_s(_TIMEOUT_S)
        try:
            with _time_limit(timeout_s):
                return self._send(request.prepare(), timeout_s)
        except _FAILURES:
            raise RetryableError("unavailable") from None

    def _send(self, request: requests.PreparedRequest, timeout_s: float) -> int:
        timeout: Any = urllib3.Timeout(total=timeout_s)
        response = self._adapter.send(
            request,
            stream=True,
            timeout=timeout,
            verify=self._verify,
        )
        with response, contextlib.suppress(*_FAILURES):
            # After a short answer, the connection can be used again. A body that breaks off does
            # not matter: the receiver has answered.
            response.raw.read(_ANSWER_BYTES, decode_content=False)
        return response.status_code


class _Socket(Protocol):
    """The methods of a connection's socket that are used here."""

    def dup(self) -> "_Socket": ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class _Call:
    """One call while it is made.

    A socket's timeout is for each read: a receiver that sends a byte now and then would never time
    out. So a timer ends the connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._connection: _Socket | None = None

    def uses(self, connection: _Socket) -> None:
        """It uses this connection."""
        with self._lock:
            self._connection = connection
            if self._over:
                _shut(connection)

    def end(self) -> None:
        """Its time is over: end the connection."""
        with self._lock:
            self._over = True
            if self._connection:
                _shut(self._connection)

    def leave(self) -> None:
        """Its connection may now be used by other calls."""
        with self._lock:
            self._connection = None


_under_way = threading.local()  # `call`: this thread's


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Requests of this thread in the `with` block are cut off after `seconds`."""
    call = _Call()
    _under_way.call = call
    timer = threading.Timer(seconds, call.end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: _Socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        connection.shutdown(_BOTH_WAYS)


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, private: bool) -> None:
        self._private = private
        super().__init__(
            pool_connections=16,
            pool_maxsize=_CONNECTIONS,
            max_retries=0,
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._private)


class _Watched:
    """A connection that its call can end, also during a TLS handshake.

    The call has a second handle of the same connection, because TLS takes over the first one.
    """

    _handle: _Socket | None = None

    def watch(self, made: _Socket) -> _Socket:
        """A new connection."""
        self._handle = made.dup()
        _under_way.call.uses(self._handle)
        return made

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send; the connection may be from an earlier call."""
        if self._handle:
            _under_way.call.uses(self._handle)
        return super().request(*args, **kwargs)  # type: ignore[misc]

    def close(self) -> None:
        """Close both handles."""
        if self._handle:
            self._handle.close()
            self._handle = None
        super().close()  # type: ignore[misc]


class _LeavingPool:
    """A pool of connections that a call leaves before they go back."""

    def _put_conn(self, connection: Any) -> None:
        _under_way.call.leave()
        super()._put_conn(connection)  # type: ignore[misc]


def _pools(private: bool) -> dict[str, type[HTTPConnectionPool]]:
    """Connection pools whose connections check the address before anything is sent."""

    class Plain(_Watched, HTTPConnection):
        def _new_conn(self) -> Any:
            connection = super()._new_conn()
            return self.watch(_checked(connection, private))

    class Secure(_Watched, HTTPSConnection):
        def _new_conn(self) -> Any:
            connection = super()._new_conn()
            return self.watch(_checked(connection, private))

    class PlainPool(_LeavingPool, HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(_LeavingPool, HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _checked(connection: Any, private: bool) -> Any:
    peer = connection.getpeername()
    address = real_address(peer[0])
    if not is_allowed(address, private=private):
        connection.close()
        raise AddressRefusedError
    return connection


def real_address(text: str) -> Address:
    """The address; if it stands for an IPv4 address, that one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address


def is_allowed(address: Address, *, private: bool) -> bool:
    """Whether webhooks may be sent to this address."""
    if address in _METADATA or address.is_multicast:
        return False
    return private or address.is_global
