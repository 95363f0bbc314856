import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from functions.common.log import log, log_bug, replace_library_logs


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    """Python's logging as other tests expect it, afterwards."""
    root = logging.getLogger()
    gunicorn = logging.getLogger("gunicorn.error")
    handlers = list(root.handlers)
    filters = list(gunicorn.filters)
    yield
    root.handlers, gunicorn.filters = handlers, filters
    logging.captureWarnings(capture=False)


def test_one_json_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    log(
        "INFO",
        "outcome",
        trace="projects/p/traces/t",
        outcome="stored",
        reason="",
        bytes=12,
        study=None,
    )
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "severity": "INFO",
        "event": "outcome",
        "outcome": "stored",
        "bytes": 12,
        "logging.googleapis.com/trace": "projects/p/traces/t",
    }


def test_a_field_that_is_not_on_the_list_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not a log field: name"):
        log("INFO", "outcome", name="Doe^Jane.dcm")
    assert capfd.readouterr().out == ""


def test_a_line_break_in_a_value_stays_inside_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    log("INFO", "outcome", detail="a\nb\u2028c")
    assert capfd.readouterr().out.count("\n") == 1


def test_a_library_logs_that_it_said_something_and_where_but_not_what(
    capfd: pytest.CaptureFixture[str], fresh_logging: None
) -> None:
    replace_library_logs()
    for name in ("urllib3.connection", "gunicorn.error", "flask.app"):
        logging.getLogger(name).error("failed for %s", "Doe^Jane")
    try:
        int("Doe^Jane")
    except ValueError:
        logging.getLogger("gunicorn.error").exception("Error handling request %s", "Doe^Jane")
    warnings.warn("Doe^Jane is no date", stacklevel=1)
    out, err = capfd.readouterr()
    assert "Doe^Jane" not in out + err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["library"] for line in lines] == [
        "urllib3.connection",
        "gunicorn.error",
        "flask.app",
        "gunicorn.error",
        "py.warnings",
    ]
    assert lines[3]["error_type"] == "ValueError"
    assert all(line["error_place"].startswith("test_log.py:") for line in lines[:4])


def test_what_a_library_does_not_warn_of_is_not_logged(
    capfd: pytest.CaptureFixture[str], fresh_logging: None
) -> None:
    replace_library_logs()
    logging.getLogger("urllib3.connectionpool").debug("GET /studies?PatientName=Doe^Jane")
    logging.getLogger("gunicorn.error").info("GET /studies?PatientName=Doe^Jane")
    assert capfd.readouterr().out == ""


def test_a_bug_is_logged_by_class_and_place(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        int("Doe^Jane")
    except ValueError as error:
        log_bug("search", error)
    line = json.loads(capfd.readouterr().out)
    assert line["event"] == "bug"
    assert line["error_type"] == "ValueError"
    assert line["error_place"].startswith("test_log.py:")
    assert "Doe^Jane" not in json.dumps(line)
