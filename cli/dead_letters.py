"""`dead-letters list|show`: messages that failed too often, read from their subscriptions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click

from cli.clients import CALL_S, Clients
from cli.errors import CliError
from cli.options import system_option
from cli.output import Item, Listing, listing_options, note, print_json, say
from cli.system import LEDGER
from cli.text import amount, shown
from functions.common import jsonvalues
from functions.common.settings import DELETE, EXPORT, NOTIFY, STORE, WATCH

# The owners of dead letters. Those of the ledger are outcomes that could not be written.
KINDS: Final = (STORE, DELETE, EXPORT, WATCH, NOTIFY, LEDGER)
EMPTY_PULLS: Final = 3  # Pub/Sub may return nothing although messages wait
SOURCE: Final = "CloudPubSubDeadLetterSource"  # what dead-lettering adds to the attributes
SOURCE_TIME: Final = f"{SOURCE}TopicPublishTime"
_ATTEMPTS: Final = f"{SOURCE}DeliveryCount"
_BATCH: Final = 100
_IDS_MAX: Final = 1000  # in one call: a request is limited to 512 KiB
_HELD_MAX: Final = 10_000  # read in one command
_SHOWN_BYTES: Final = 64 * 1024
_LEVELS: Final = 100  # Python can read JSON that is nested too deeply to be printed
_COLUMNS: Final = ("since", "function", "attempts", "what", "message")


@dataclass(frozen=True)
class Held:
    """A message that was taken and not yet acknowledged.

    Args:
        published: when it became a dead letter, RFC 3339.
    """

    ack_id: str
    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    published: str


def function_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--function`: whose dead letters."""
    return click.option(
        "--function",
        type=click.Choice(KINDS),
        help=f"Only those of one function; {LEDGER}: outcomes that the ledger lacks. "
        "Without it: all.",
    )(command)


def subscription(clients: Clients, name: str) -> str:
    """The full name of the subscription that holds the dead letters of one of `System.bound`."""
    bound = clients.system.bound[name]
    return clients.system.subscription(bound["dead_letter_subscription"])


def take(clients: Clients, subscription: str, limit: int) -> list[Held]:
    """Up to `limit` messages; possibly none although messages wait."""
    request = {
        "subscription": subscription,
        "max_messages": limit,
        "return_immediately": True,
    }
    answer = clients.subscriber.pull(request=request, timeout=CALL_S)
    return [
        Held(
            ack_id=one.ack_id,
            message_id=one.message.message_id,
            data=one.message.data,
            attributes=dict(one.message.attributes),
            published=_published(one.message),
        )
        for one in answer.received_messages
    ]


def until_empty(clients: Clients, subscription: str) -> Iterator[list[Held]]:
    """All messages in batches; a message comes once, even if it is not acknowledged meanwhile."""
    empty = 0
    while empty < EMPTY_PULLS:
        messages = take(clients, subscription, _BATCH)
        empty += 1
        if messages:
            empty = 0
            yield messages


def acknowledge(clients: Clients, subscription: str, held: Sequence[Held]) -> None:
    """Remove them from the subscription."""
    for ids in _batches(held):
        clients.subscriber.acknowledge(subscription=subscription, ack_ids=ids, timeout=CALL_S)


def give_back(clients: Clients, subscription: str, held: Sequence[Held]) -> None:
    """Make them available again at once."""
    for ids in _batches(held):
        clients.subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=ids, ack_deadline_seconds=0, timeout=CALL_S
        )


@contextmanager
def lent(clients: Clients, name: str) -> Iterator[list[Held]]:
    """The waiting messages of one of `System.bound`, but no more than memory holds; all are given
    back when the `with` block ends."""
    place = subscription(clients, name)
    held: list[Held] = []
    try:
        for messages in until_empty(clients, place):
            held += messages
            if len(held) >= _HELD_MAX:
                note(f"there may be more than {len(held)} of {name}: no more are read")
                break
        yield held
    finally:
        give_back(clients, place, held)


def _published(message: Any) -> str:
    time = message.publish_time
    if time is None:
        return ""
    return str(time.rfc3339())


def _batches(held: Sequence[Held]) -> Iterator[list[str]]:
    for start in range(0, len(held), _IDS_MAX):
        yield [one.ack_id for one in held[start : start + _IDS_MAX]]


@click.group("dead-letters")
def dead_letters() -> None:
    """List and show messages that failed too often.

    Pub/Sub no longer delivers them, and keeps them for 31 days. The function's log says why each
    delivery failed. To publish them again after a fix: dicom-functions replay dead-letters.
    """


@dead_letters.command("list")
@function_option
@listing_options(limit=100)
@system_option
def list_(clients: Clients, function: str | None, listing: Listing) -> int:
    """List dead letters: since when, for which function, attempts, and subject."""
    found: list[Item] = []
    for name in clients.system.bound_of(function):
        with lent(clients, name) as held:
            found += [_item(name, one) for one in held]
    chosen = listing.chosen(found)
    listing.print(chosen, _COLUMNS)
    if listing.format.for_people:
        say(f"{len(chosen)} of {amount(len(found), 'dead letters')}")
    return 0


@dead_letters.command("show")
@click.argument("message", metavar="MESSAGE")
@function_option
@system_option
def show(clients: Clients, message: str, function: str | None) -> int:
    """Show a message as JSON. MESSAGE is its ID, as `list` shows it."""
    for name in clients.system.bound_of(function):
        with lent(clients, name) as held:
            found = [one for one in held if one.message_id == message]
        if found:
            print_json(_item(name, found[0]).full)
            return 0
    raise CliError(f"no dead letter has the ID {message}; see dicom-functions dead-letters list")


def _item(function: str, held: Held) -> Item:
    record = {
        "message": held.message_id,
        "since": held.published,
        "published": held.attributes.get(SOURCE_TIME, ""),
        "function": function,
        "attempts": held.attributes.get(_ATTEMPTS, ""),
        "attributes": dict(held.attributes),
        "data": _data(held.data),
    }
    return Item.of(record, what=_what(held))


def _data(data: bytes) -> Any:
    """The data as JSON if it is JSON that can be printed, else as text."""
    found = jsonvalues.parsed(data)
    if found is None or _is_deep(found):
        return data[:_SHOWN_BYTES].decode(errors="replace")
    return found


def _is_deep(value: Any, levels: int = _LEVELS) -> bool:
    """Whether arrays and objects are nested in more levels than these."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deep(item, levels - 1) for item in value)


def _what(held: Held) -> str:
    """The subject of a message: the object, the resource or query, or the outcome's input."""
    fields: dict[str, Any] = dict(held.attributes)
    data = _data(held.data)
    if isinstance(data, dict):
        fields = {**data, **fields}
    for keys in (("bucketId", "objectId"), ("bucket", "name")):
        if all(key in fields for key in keys):
            return f"gs://{shown(fields[keys[0]])}/{shown(fields[keys[1]])}"
    named = [shown(fields[key]) for key in ("path", "query", "request_id") if fields.get(key)]
    return " ".join(named)
