"""How google-cloud-storage is called: over the shared transport, without its own retries, and with
its errors translated to those of errors.py."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from functions.common.checksum import Checksum
from functions.common.clients.transport import Request, Transport, read_all
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError

_ANSWER_LIMIT_BYTES: Final = 16 * 1024 * 1024
# `upload` says what these mean in an upload session.
_SESSION_LOST: Final = (308, 404, 410)

T = TypeVar("T")


class PreconditionFailedError(Exception):
    """The object does not have the expected generation (or exists although it should not)."""


class MissingError(Exception):
    """The object or its bucket does not exist."""


def new_client(transport: Transport, endpoint: str) -> Any:
    """A google.cloud.storage.Client that sends through the transport."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return storage.Client(
        project="none",  # only needed to create or list buckets
        credentials=anonymous,  # the transport adds the real ones
        _http=_Http(transport),
        client_options={"api_endpoint": endpoint},
    )


class _Http:
    """In place of the library's HTTP session: requests go through the transport.

    The library passes the `timeout` of a call on unchanged; here it is the deadline.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def request(
        self,
        method: str,
        url: str,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = None,
    ) -> Any:
        """Send a request and read its answer, as requests.Session.request does."""
        import requests

        if isinstance(data, str):
            data = data.encode()
        body = data or None  # an empty chunk is sent with its headers, and without a body
        plain = {**(headers or {}), "Accept-Encoding": "identity"}
        with self._transport.send(Request(method, url, None, plain, body), timeout) as answer:
            content = read_all(answer, timeout, _ANSWER_LIMIT_BYTES)
        response = requests.Response()
        response.status_code = answer.status_code
        response.headers.update(answer.headers)
        response._content = content
        # The request in the library's errors, without its body, which may be large.
        response.request = requests.PreparedRequest()
        response.request.method = method
        response.request.url = url
        return response


class Stream:
    """An iterable of bytes as the file that the library uploads from. Memory: one chunk."""

    def __init__(self, data: Iterable[bytes]) -> None:
        self._pieces = iter(data)
        self._left = memoryview(b"")
        self._at = 0
        self.checksum = Checksum()  # of all that was read
        # The library raises ValueError too; `upload` must tell the two apart.
        self.source_raised_value_error = False

    def whole_if_small(self, limit_bytes: int) -> bytes | None:
        """All bytes if they are within the limit; else None, and `read` begins at the first one."""
        head: list[bytes] = []
        size = 0
        for piece in self._pieces:
            head.append(piece)
            size += len(piece)
            if size > limit_bytes:
                self._pieces = itertools.chain(head, self._pieces)
                return None
        return b"".join(head)

    def tell(self) -> int:
        """How many bytes were read."""
        return self._at

    def read(self, size: int) -> bytearray:
        """The next bytes, fewer only at the end."""
        chunk = bytearray(size)
        filled = 0
        while filled < size and self._fill():
            taken = self._left[: size - filled]
            chunk[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._left = self._left[len(taken) :]
        del chunk[filled:]
        self._at += filled
        return chunk

    def _fill(self) -> bool:
        """Whether there are bytes left to read."""
        while not self._left:
            try:
                piece = next(self._pieces, None)
            except ValueError:
                self.source_raised_value_error = True
                raise
            if piece is None:
                return False
            self.checksum.add(piece)
            self._left = memoryview(piece)
        return True


def call(function: Callable[..., T], *args: Any, deadline: Deadline, **options: Any) -> T:
    """One call of the library, without its own retries; `timeout` reaches _Http.request."""
    with translated():
        return function(*args, timeout=deadline, retry=None, **options)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translates the library's errors to those of errors.py, without their text, which contains
    names and a server's text."""
    from google.api_core import exceptions
    from requests.exceptions import InvalidJSONError

    try:
        yield
    except exceptions.NotFound:
        raise MissingError from None
    except exceptions.PreconditionFailed:
        raise PreconditionFailedError from None
    except exceptions.GoogleAPICallError as error:
        raise rejected(error.code) from None
    except InvalidJSONError:
        raise RetryableError("unavailable") from None


def upload(blob: Any, stream: Stream, if_generation_match: int | None, deadline: Deadline) -> None:
    """A resumable upload, in chunks of `blob.chunk_size`. It cannot begin again, because a stream
    is read once: whenever the session is lost, the delivery fails and the next one uploads anew.

        what the service answers to a chunk       what the library raises   what becomes of it
        404 or 410: the session is gone           an error of that status   unavailable
        308 without a Range: nothing is stored    an error of that status   unavailable
        308 with fewer bytes than were sent       ValueError                unavailable

    The bytes are not compared here: `Buckets.write` compares the object's checksum.

    Raises:
        MissingError, PreconditionFailedError, PermanentError, RetryableError: as Buckets.write.
        ValueError: of the stream's own source.
    """
    from google.api_core import exceptions

    def send(**options: Any) -> None:
        try:
            blob.upload_from_file(stream, checksum=None, **options)
        except ValueError:
            if stream.source_raised_value_error:
                raise
            raise RetryableError("unavailable") from None
        except exceptions.GoogleAPICallError as error:
            # A POST begins the session; only its chunks are sent by PUT.
            in_session = error.response is not None and error.response.request.method == "PUT"
            if in_session and error.code in _SESSION_LOST:
                raise RetryableError("unavailable") from None
            raise

    with bucket_needed():
        call(send, if_generation_match=if_generation_match, deadline=deadline)


@contextlib.contextmanager
def bucket_needed() -> Iterator[None]:
    """A 404 in this block means that the bucket is missing.

    Raises:
        PermanentError: not_found.
    """
    try:
        yield
    except MissingError:
        raise PermanentError("not_found", "the bucket does not exist") from None


def rejected(status: int | None) -> PermanentError:
    """The error for a refusal that a retry cannot change."""
    return PermanentError("rejected", f"Cloud Storage answered {status}")
