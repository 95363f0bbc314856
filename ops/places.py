"""What a command that moves messages and objects works with: a system's buckets and topics, and
clients for them."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from functions.common.clients.pubsub import Topics
from functions.common.clients.storage import Buckets
from functions.common.clients.transport import Transport
from functions.common.errors import DicomFunctionsError, PermanentError
from ops.progress import Progress
from ops.subscription import Subscriptions
from ops.system import NoSystemError, System


@dataclass(frozen=True)
class Places:
    """Buckets and topics by role; dead letters (names of subscriptions) and topics' roles by
    function, `FUNCTION/follow-ups` or LEDGER."""

    buckets_by_role: dict[str, str]
    topics_by_role: dict[str, str]
    dead_letters: dict[str, str]
    roles: dict[str, str]
    ledger_prefix: str
    buckets: Buckets
    topics: Topics
    subscriptions: Subscriptions

    @classmethod
    def of(cls, system: System) -> Self:
        """Of a system, local or deployed."""
        transport = Transport()
        pubsub = system.endpoints.pubsub.removeprefix("http://") if system.local else ""
        return cls(
            dict(system.buckets),
            {role: system.topic(role) for role in system.topology["topics"]},
            {
                name: system.subscription(item["dead_letter_subscription"])
                for name, item in system.bound.items()
            },
            {name: item["topic"] for name, item in system.bound.items()},
            system.topology["ledger_subscription"]["filename_prefix"],
            Buckets(transport, system.endpoints.storage if system.local else ""),
            Topics(transport, pubsub),
            Subscriptions(transport, pubsub),
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which system, and whether to change anything."""
    parser.add_argument(
        "--system",
        type=Path,
        metavar="FILE",
        help="the system's file (default: .local/stack.json of the running local stack, else .deploy/system.json)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )


def run(command: str, file: Path | None, work: Callable[[Places], Progress]) -> int:
    """Find the system, do the work, print the counts.

    Returns:
        0 done, 1 it broke off (what was done until then stays done), 2 there is no such system.
    """
    try:
        system = System.find(file)
        print(f"{command}: {system.where}", file=sys.stderr)
        work(Places.of(system)).end()
    except NoSystemError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except DicomFunctionsError as error:
        detail = error.detail if isinstance(error, PermanentError) else "try again"
        print(f"{command}: {error.reason}: {detail}", file=sys.stderr)
        return 1
    return 0
