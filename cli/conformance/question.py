"""What a question is. Its answer is a JSON value, so that answers can be compared and sent in."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cli.conformance.client import Probe

WAIT_S: Final = 120.0
_PAUSE_S: Final = 0.5

Answer = Any
Ask = Callable[[Probe], Answer]


class NotSeenError(Exception):
    """The answer could not be observed; the text says why, for a person."""


@dataclass(frozen=True)
class Question:
    """One question to the service.

    Attributes:
        name: of the function that asks.
        section: of the fact sheet, docs/healthcare-api.md.
        text: the question in one line.
        assumed: the answer of the local DICOM store.
        choices: the names in infra/local/dicomstore/choices.py that depend on the answer.
        ask: the function that finds the answer.
    """

    name: str
    section: str
    text: str
    assumed: Answer
    choices: tuple[str, ...]
    ask: Ask


QUESTIONS: list[Question] = []


def asks(section: str, assumed: Answer, *choices: str) -> Callable[[Ask], Ask]:
    """Add a function to the list of questions; its docstring is the question's text."""

    def add(ask: Ask) -> Ask:
        text = " ".join((ask.__doc__ or "").split())
        question = Question(
            name=ask.__name__,
            section=section,
            text=text,
            assumed=assumed,
            choices=choices,
            ask=ask,
        )
        QUESTIONS.append(question)
        return ask

    return add


def first_seen(check: Callable[[], bool]) -> Answer:
    """When a check succeeds: at once (at the first try), after some seconds, or not within two
    minutes."""
    start = time.monotonic()
    if check():
        return "at once"
    while time.monotonic() - start < WAIT_S:
        time.sleep(_PAUSE_S)
        if check():
            return f"after {time.monotonic() - start:.0f} s"
    return f"not within {WAIT_S:.0f} s"
