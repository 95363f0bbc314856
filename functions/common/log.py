"""The only place that logs: one JSON object on each line of standard output, in the form of Cloud
Logging.

A field is written only when its name is on the list below: none is for an object name, a patient
attribute, a query value, a token or a server's text. UIDs of studies, series and instances are
written. `detail` is free text, so it has only known words: our own (errors.py), the name of an
order (watch/orders.py), and those of gunicorn about its workers.
"""

import io
import json
import logging
import threading
import traceback
from pathlib import Path
from typing import Final, Literal

Severity = Literal["INFO", "WARNING", "ERROR"]

FIELDS: Final = frozenset(
    {
        "event",  # what happened, in one word
        "id",  # the outcome's id: a hash of the input's identity
        "outcome",
        "reason",
        "detail",  # from PermanentError.detail, or the message of a refusal
        "function",
        "request_id",
        "study",
        "series",
        "instance",
        "bytes",
        "counts",
        "attempt",
        "duration_ms",
        "status",  # of an HTTP answer
        "method",
        "retry_after_s",
        "error_type",  # of a bug: the exception's class
        "error_place",  # of a bug: file, line and function
        "library",  # the logger that was called, without its message
        "message_id",
        "webhook",  # its name in the operator's settings
    }
)

_ROOT: Final = Path(__file__).parents[2]
# Not sys.stdout: functions-framework may replace it (with LOG_EXECUTION_ID, which Cloud Functions
# set) by a stream that writes each line in two parts, so that lines of several threads mix.
_STANDARD_OUTPUT: Final = io.FileIO(1, "w", closefd=False)
_ONE_LINE_AT_A_TIME: Final = threading.Lock()


def log(severity: Severity, event: str, *, trace: str = "", **fields: object) -> None:
    """Write one line.

    Args:
        severity: as Cloud Logging knows it.
        event: what happened, in one word such as `outcome` or `retry`.
        trace: `projects/P/traces/T`, so that Cloud Logging groups the lines of one request; left
            out when empty.
        fields: those of FIELDS; empty ones are left out.

    Raises:
        ValueError: a field that is not in FIELDS.
    """
    unknown = fields.keys() - FIELDS
    if unknown:
        raise ValueError(f"not a log field: {', '.join(sorted(unknown))}")
    line: dict[str, object] = {"severity": severity, "event": event}
    line.update({name: value for name, value in fields.items() if value not in (None, "")})
    if trace:
        line["logging.googleapis.com/trace"] = trace
    text = json.dumps(line, separators=(",", ":")) + "\n"
    with _ONE_LINE_AT_A_TIME:
        _STANDARD_OUTPUT.write(text.encode())


def log_bug(function: str, error: BaseException, *, trace: str = "", **fields: object) -> None:
    """Log an unexpected error: its class and its place, never its text, which may contain anything.

    Args:
        function: the function's name.
        trace, fields: as for `log`.
    """
    log(
        "ERROR",
        "bug",
        trace=trace,
        function=function,
        error_type=type(error).__name__,
        error_place=_place(error),
        **fields,
    )


def _place(error: BaseException) -> str:
    """File, line and function of the innermost frame in this project's code."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT):
            place = f"{path.name}:{frame.lineno} {frame.name}"
    return place


def replace_library_logs() -> None:
    """Stop libraries and the server from logging their own messages, which may contain a URL, a
    parameter or a value. For each of their warnings and errors, one line names the logger and the
    place in its source."""
    handler = _LibraryHandler(logging.WARNING)
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(capture=True)
    # gunicorn sets its own handlers when it starts, after this, but does not change filters.
    logging.getLogger("gunicorn.error").addFilter(handler.instead)


class _LibraryHandler(logging.Handler):
    """Writes only that something was logged."""

    def emit(self, record: logging.LogRecord) -> None:
        severity: Severity = "WARNING"
        if record.levelno >= logging.ERROR:
            severity = "ERROR"
        error_type = ""
        if record.exc_info and record.exc_info[0]:
            error_type = record.exc_info[0].__name__
        log(
            severity,
            "library",
            library=record.name,
            detail=_words_of_gunicorns_arbiter(record),
            error_type=error_type,
            error_place=f"{record.filename}:{record.lineno} {record.funcName}",
        )

    def instead(self, record: logging.LogRecord) -> bool:
        """A filter that passes nothing."""
        if record.levelno >= self.level:
            self.emit(record)
        return False


def _words_of_gunicorns_arbiter(record: logging.LogRecord) -> str:
    """The text of an error of gunicorn's arbiter, else empty. The arbiter starts the workers; it
    sees no requests, and its messages about killed workers are needed."""
    is_arbiter = record.name == "gunicorn.error" and record.module == "arbiter"
    if not is_arbiter or record.exc_info or record.levelno < logging.ERROR:
        return ""
    return record.getMessage()
