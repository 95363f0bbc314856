"""A process that dies: its outside calls stop before or after the n-th one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from functions.common.events.runtime import Services

CALLS = {
    "buckets": ("open", "stat", "write_small", "copy", "delete", "list"),
    "dicom_store": ("store", "get", "search", "delete", "stored_at"),
    "topics": ("publish",),
}


class KilledError(BaseException):
    """The process is dead: no handler catches it."""


@dataclass
class Kill:
    """When the process dies.

    Args:
        step: the number of the call, from 0 on.
        when: before or after it.
    """

    step: int
    when: str
    calls: int = 0
    happened: bool = False

    def call(self, function: Any, *arguments: Any, **more: Any) -> Any:
        """One call to the outside."""
        if self.happened:
            return function(*arguments, **more)
        mine = self.calls == self.step
        self.calls += 1
        if mine and self.when == "before":
            self.happened = True
            raise KilledError
        result = function(*arguments, **more)
        if mine:
            self.happened = True
            raise KilledError
        return result


@contextmanager
def killing(services: Services, step: int, when: str) -> Iterator[Kill]:
    """One process dies at its n-th call; later ones do not."""
    kill = Kill(step, when)
    clients = [(getattr(services, client), name) for client in CALLS for name in CALLS[client]]

    def mortal(function: Any) -> Any:
        return lambda *arguments, **more: kill.call(function, *arguments, **more)

    for client, name in clients:
        setattr(client, name, mortal(getattr(client, name)))
    try:
        yield kill
    finally:
        for client, name in clients:
            delattr(client, name)
