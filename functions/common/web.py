"""What all HTTP functions share: reading a body up to a limit, and answering with a stream."""

from collections.abc import Iterator, Mapping

import flask
import werkzeug.exceptions

from functions.common.errors import PermanentError


def read_body(request: flask.Request, limit_bytes: int) -> bytes:
    """The request's body. The bytes that are read are counted, so the limit also holds for chunked
    bodies.

    Raises:
        PermanentError: invalid_event, when it is larger than the limit, ends too early or is not
            valid HTTP.
    """
    request.max_content_length = limit_bytes
    try:
        return request.stream.read()
    except werkzeug.exceptions.RequestEntityTooLarge:
        raise PermanentError("invalid_event", f"larger than {limit_bytes} bytes") from None
    # For a malformed chunk the server raises its own errors, which are not OSErrors.
    except Exception:  # noqa: BLE001
        raise PermanentError("invalid_event", "the body cannot be read to its end") from None


def response(status: int, headers: Mapping[str, str], body: bytes) -> flask.Response:
    """An answer with a complete body."""
    if status not in (204, 304):
        headers = {**headers, "Content-Length": str(len(body))}
    return streamed(status, headers, iter([body]))


def streamed(status: int, headers: Mapping[str, str], chunks: Iterator[bytes]) -> flask.Response:
    """An answer as a stream. All answers are streams: before any other answer, functions-framework
    reads the whole body of the request into memory."""
    answer = flask.Response(chunks, status, headers)
    if "Content-Type" not in headers:
        # flask adds its own.
        del answer.headers["Content-Type"]
    return answer
