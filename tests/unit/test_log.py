import json

import pytest

from functions.common.log import log


def test_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log(
        "INFO",
        "outcome",
        trace="projects/p/traces/t",
        outcome="stored",
        reason="",
        bytes=12,
        study=None,
    )
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "severity": "INFO",
        "event": "outcome",
        "outcome": "stored",
        "bytes": 12,
        "logging.googleapis.com/trace": "projects/p/traces/t",
    }


def test_a_field_that_is_not_on_the_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not a log field: name"):
        log("INFO", "outcome", name="Doe^Jane.dcm")
    assert capsys.readouterr().out == ""


def test_a_line_break_in_a_value_stays_inside_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log("INFO", "outcome", detail="a\nb\u2028c")
    assert capsys.readouterr().out.count("\n") == 1
