"""The only place that logs: one JSON object a line on standard output, as Cloud Logging reads it.

A field is written only when its name is on the list below. So no object name, patient attribute,
query value, token or server's text reaches a log by accident: there is no field to put it in.
"""

import json
import sys
from typing import Final, Literal

Severity = Literal["INFO", "WARNING", "ERROR"]

FIELDS: Final = frozenset(
    {
        "event",  # what happened, in one word
        "id",  # the outcome's id: a hash of the input's identity
        "outcome",
        "reason",
        "detail",  # our own words, from PermanentError.detail
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
        "message_id",
    }
)


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
    if unknown := fields.keys() - FIELDS:
        raise ValueError(f"not a log field: {', '.join(sorted(unknown))}")
    line: dict[str, object] = {"severity": severity, "event": event}
    line.update({name: value for name, value in fields.items() if value not in (None, "")})
    if trace:
        line["logging.googleapis.com/trace"] = trace
    # One write, newline included: lines of several threads never mix.
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()
