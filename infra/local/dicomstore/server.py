"""A small threaded HTTP/1.1 server for one WSGI application, made for big bodies.

The installed servers are not used: werkzeug closes each connection, and gunicorn reads bodies in 8
KiB pieces and runs the application in a second process. Here the application reads a request body
in pieces of any size directly from the socket, and each piece that it yields is sent as one HTTP
chunk (Google's dcmweb needs this for part headers).
"""

import contextlib
import socket
import socketserver
import struct
import sys
import traceback
from collections.abc import Callable, Iterable
from io import BufferedIOBase
from typing import Any
from urllib.parse import unquote_to_bytes

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

IDLE_S = 120.0  # a keep-alive connection without a request is closed after this
DRAIN_BYTES = 4 << 30  # of an unread request body, so that the client reads the answer
MAX_LINE = 65_536
INTERNAL = (
    b'{"error": {"code": 500, "message": "Internal error encountered.", "status": "INTERNAL"}}'
)


class ResetError(Exception):
    """Raised by the application to drop the connection with a TCP reset."""


class CutError(Exception):
    """Raised by the application to close the connection in the middle of a body."""


class BadRequestError(Exception):
    """The bytes on the connection are not valid HTTP/1.1."""


class Body:
    """A request body: `read(n)` blocks until n bytes or the end; ends early with CutError."""

    def __init__(
        self, file: BufferedIOBase, length: int | None, on_first_read: Callable[[], None] | None
    ) -> None:
        self._file = file
        self._chunked = length is None
        self._left = length or 0  # of the body, or of the current chunk
        self._on_first_read = on_first_read
        self.done = not self._chunked and self._left == 0

    @property
    def awaits_continue(self) -> bool:
        """Whether the client still waits for `100 Continue` before it sends the body."""
        return self._on_first_read is not None

    def read(self, size: int = -1) -> bytes:
        """Up to size bytes (all when negative); fewer only at the end of the body."""
        if self.done:
            return b""
        if self._on_first_read:
            self._on_first_read()
            self._on_first_read = None
        if not self._chunked:
            return self._take(self._wanted(size))
        pieces = []
        while not self.done and size != 0:
            if self._left == 0:
                self._next_chunk()
                continue
            piece = self._take(self._wanted(size))
            pieces.append(piece)
            if size > 0:
                size -= len(piece)
        return b"".join(pieces)

    def _wanted(self, size: int) -> int:
        """How many bytes can be read at once of those asked for; all when that is negative."""
        if size < 0:
            return self._left
        return min(size, self._left)

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise CutError("the client closed the connection inside its request body")
        self._left -= count
        if self._left == 0:
            if self._chunked:
                self._file.readline(MAX_LINE)  # the line end after each chunk
            else:
                self.done = True
        return data

    def _next_chunk(self) -> None:
        line = self._file.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise CutError("the client closed the connection inside its request body")
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise BadRequestError("chunk size") from error
        if self._left == 0:
            while self._file.readline(MAX_LINE).strip():
                pass  # trailers
            self.done = True


class Connection(socketserver.StreamRequestHandler):
    """One client connection: requests one after the other until either side closes."""

    disable_nagle_algorithm = True
    rbufsize = 64 << 10
    timeout = IDLE_S
    server: "Server"

    def handle(self) -> None:
        """Serve until the connection ends; never raises."""
        with contextlib.suppress(OSError, CutError):
            try:
                while self._serve_one():
                    pass
            except BadRequestError as error:
                text = str(error).encode()
                lines = [
                    "HTTP/1.1 400 Bad Request",
                    f"Content-Length: {len(text)}",
                    "Connection: close",
                ]
                head = "\r\n".join(lines) + "\r\n\r\n"
                self.connection.sendall(head.encode() + text)
            except ResetError:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    def _serve_one(self) -> bool:
        line = self.rfile.readline(MAX_LINE)
        if not line.strip():
            return bool(line)
        try:
            method, target, version = line.decode("latin-1").split()
        except ValueError as error:
            raise BadRequestError("request line") from error
        headers = self._headers()
        body = self._body(headers)
        environ = self._environ(method, target, version, headers, body)
        answer = Answer(self.connection, method, version)
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        try:
            chunks = self.server.application(environ, answer.start)
        except (BadRequestError, CutError, ResetError):
            raise
        except Exception as error:  # noqa: BLE001 - the request boundary: a bug is a 500 for one client
            report_bug(error)
            chunks, keep = [INTERNAL], False
            answer.start(
                "500 Internal Server Error", [("Content-Type", "application/json; charset=UTF-8")]
            )
        try:
            answer.send(chunks, close=not keep)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return self._drain(body) and keep and answer.reusable

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(MAX_LINE)) not in (b"\r\n", b"\n"):
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or len(headers) > 200:
                raise BadRequestError("header")
            key = name.strip().lower()
            text = value.strip()
            if key in headers:
                text = f"{headers[key]}, {text}"
            headers[key] = text
        return headers

    def _body(self, headers: dict[str, str]) -> Body:
        length: int | None = None
        if headers.get("transfer-encoding", "").lower() != "chunked":
            text = headers.get("content-length", "0")
            if not text.isdecimal():
                raise BadRequestError("Content-Length")
            length = int(text)
        expects = headers.get("expect", "").lower() == "100-continue"
        if expects:
            return Body(self.rfile, length, self._continue)
        return Body(self.rfile, length, None)

    def _continue(self) -> None:
        self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _environ(
        self, method: str, target: str, version: str, headers: dict[str, str], body: Body
    ) -> Environ:
        path, _, query = target.partition("?")
        if "://" in path:  # absolute form, as to a proxy
            path = "/" + path.split("://", 1)[1].partition("/")[2]
        host, port = self.server.server_address[:2]
        environ: Environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "REQUEST_URI": target,
            "SERVER_NAME": str(host),
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": version,
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = "HTTP_" + key
            environ[key] = value
        return environ

    def _drain(self, body: Body) -> bool:
        if body.awaits_continue:
            return False  # without a 100, the client may send its body or not
        left = DRAIN_BYTES
        while not body.done and left > 0:
            left -= len(body.read(min(1 << 20, left)))
        return body.done


class Answer:
    """Writes one response: as it is when its length is known, else in HTTP chunks, one for each
    piece."""

    def __init__(self, connection: socket.socket, method: str, version: str) -> None:
        self._send = connection.sendall
        self._no_body = method == "HEAD"
        self._http11 = version == "HTTP/1.1"
        self._head = b""
        self._chunked = False
        self._left: int | None = None  # bytes of a body of known length still to send
        self.reusable = True

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: object = None,
    ) -> Callable[[bytes], None]:
        """WSGI's start_response; the head leaves with the first piece of the body."""
        del exc_info  # nothing has been sent yet whenever it is called
        lines = [f"HTTP/1.1 {status}"]
        length = None
        for name, value in headers:
            lines.append(f"{name}: {value}")
            if name.lower() == "content-length":
                length = int(value)
        if status[:3] in ("204", "304"):
            self._no_body = True
        self._left = length
        if self._no_body:
            self._left = None
        self._chunked = self._http11 and length is None and not self._no_body
        self.reusable = self._http11
        if self._chunked:
            lines.append("Transfer-Encoding: chunked")
        self._head = "\r\n".join(lines).encode("latin-1")
        return lambda _: None

    def send(self, chunks: Iterable[bytes], close: bool) -> None:
        """Send the head and every piece. Raises what the application raises, OSError, and CutError:
        too short."""
        pending = self._head
        if close:
            pending += b"\r\nConnection: close"
        pending += b"\r\n\r\n"
        for chunk in chunks:
            if self._no_body or not chunk:
                continue
            if self._chunked:
                pending += b"%x\r\n" % len(chunk)
            if len(chunk) < 16_384:
                self._send(pending + chunk)
            else:
                self._send(pending)
                self._send(chunk)
            pending = b""
            if self._chunked:
                pending = b"\r\n"
            if self._left is not None:
                self._left -= len(chunk)
        if self._chunked:
            pending += b"0\r\n\r\n"
        self._send(pending)
        if self._left:
            raise CutError("a file went away while it was being sent")


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves one application; a thread for each connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, host: str, port: int, application: WSGIApp) -> None:
        self.application = application
        super().__init__((host, port), Connection)

    @property
    def url(self) -> str:
        """Where it listens, `http://host:port`."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A bug in the application after its answer began: log the place, close the connection."""
        del request, client_address
        error = sys.exception()
        if error:
            report_bug(error)


def report_bug(error: BaseException) -> None:
    """Log on stderr where an error was raised, without its text, which may contain values of a
    file."""
    print(f"{type(error).__name__} in", file=sys.stderr)
    for frame in traceback.extract_tb(error.__traceback__):
        print(f"  {frame.filename}:{frame.lineno} {frame.name}", file=sys.stderr)
