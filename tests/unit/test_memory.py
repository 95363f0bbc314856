"""What a process remembers: bounded, and never in the way."""

import threading

import pytest

from functions.common.errors import RetryableError
from functions.common.resources import Resource
from functions.store.memory import Memory

ONE = Resource("1", "2", "3")


def was_done(memory: Memory, key: str) -> bool:
    """Whether an input was handled before; it is, afterwards."""
    with memory.working_on(key) as done:
        return done


def test_an_input_is_done_once_it_was_left_without_an_error() -> None:
    memory = Memory()
    with pytest.raises(ZeroDivisionError), memory.working_on("a") as done:
        assert not done
        raise ZeroDivisionError
    with memory.working_on("a") as done:
        assert not done
    with memory.working_on("a") as done:
        assert done
    assert not was_done(memory, "b")


def test_a_second_thread_is_sent_away() -> None:
    memory = Memory()
    answers = []

    def second() -> None:
        try:
            with memory.working_on("a"):
                answers.append("worked")
        except RetryableError as error:
            answers.append(error.reason)

    with memory.working_on("a"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    second()
    assert answers == ["operation_pending", "worked"]


def test_the_first_to_store_an_instance_stays_the_first() -> None:
    memory = Memory()
    assert not memory.note_stored(ONE, "crc", "a")
    assert not memory.note_stored(ONE, "crc", "a")
    assert memory.note_stored(ONE, "crc", "b")
    assert memory.has_stored(ONE, "b")
    assert not memory.has_stored(ONE, "a")


def test_other_bytes_of_an_instance_take_the_place_of_the_first() -> None:
    memory = Memory()
    memory.note_stored(ONE, "crc", "a")
    assert not memory.note_stored(ONE, "other", "b")
    assert memory.note_stored(ONE, "other", "a")


def test_bytes_without_a_checksum_are_no_duplicate() -> None:
    memory = Memory()
    assert not memory.note_stored(ONE, "", "c")
    assert not memory.note_stored(ONE, "", "d")


def test_it_forgets_the_oldest() -> None:
    memory = Memory(limit=2)
    for key in ("a", "b", "c"):
        assert not was_done(memory, key)
    assert [was_done(memory, key) for key in ("c", "b", "a")] == [True, True, False]
    for number in ("1", "2", "3"):
        memory.note_stored(Resource("1", "2", number), "crc", "a")
    assert [memory.has_stored(Resource("1", "2", n), "b") for n in ("3", "2", "1")] == [
        True,
        True,
        False,
    ]
