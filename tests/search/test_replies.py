"""An answer of search that has begun, and breaks."""

import json
from collections.abc import Iterator

import pytest

from functions.common.errors import RetryableError
from functions.search.replies import cut_on_error

SECRET = "Doe^Jane"


def breaking(error: Exception) -> Iterator[bytes]:
    yield b"first"
    raise error


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RetryableError("unavailable"), "answer_cut"),
        (OSError(SECRET), "answer_cut"),
        (KeyError(SECRET), "bug"),
        (UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET), "bug"),
    ],
)
def test_an_answer_that_breaks_is_cut_without_a_word_of_the_error(
    capfd: pytest.CaptureFixture[str], error: Exception, event: str
) -> None:
    chunks = cut_on_error(breaking(error))
    assert next(chunks) == b"first"
    with pytest.raises(ConnectionResetError):
        next(chunks)
    out, err = capfd.readouterr()
    assert json.loads(out)["event"] == event
    assert SECRET not in out + err


def test_an_answer_without_an_error_is_unchanged() -> None:
    assert list(cut_on_error(iter([b"a", b"b"]))) == [b"a", b"b"]
