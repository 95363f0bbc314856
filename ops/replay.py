"""After a fix: bring back what is in quarantine, or deliver again what was dead-lettered.

    python -m ops replay quarantine [--prefix unsupported_input/]
    python -m ops replay dead-letters [--function delete_resource]

From quarantine an object is copied to its old name in the landing bucket, which is an upload like
any other, and then taken out of quarantine; one whose old name is taken by other bytes stays. A
dead letter is published on the topic it came from, with the time when it was first published, and
then acknowledged; an outcome that the ledger missed likewise.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from functions.common.clients.storage import StoredObject
from functions.common.clients.transport import read_all
from functions.common.deadline import Deadline, timestamp
from functions.common.errors import SupersededError
from functions.common.events.messages import FIRST_PUBLISHED
from functions.common.resources import ObjectRef
from functions.common.settings import DELETE, EXPORT, STORE
from functions.store.quarantine import NOTE_ENDING, NOTE_LIMIT_BYTES, Note
from ops.places import Places, add_flags, run
from ops.progress import Progress
from ops.subscription import Held
from ops.system import LEDGER

_DAY_S: Final = 86400.0
_CALL_S: Final = 600.0
_ADDED: Final = (
    "CloudPubSubDeadLetterSource",
    "googclient_",
)  # attributes that dead-lettering or a client added
_SOURCE_TIME: Final = "CloudPubSubDeadLetterSourceTopicPublishTime"


def main(arguments: list[str]) -> int:
    """Read the flags, replay, print the counts; the exit status, as ops.places.run."""
    parser = argparse.ArgumentParser(
        prog="python -m ops replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    quarantine = kinds.add_parser("quarantine", help="objects in quarantine")
    quarantine.add_argument(
        "--prefix", default="", help="only those whose name there begins so, such as `rejected/`"
    )
    letters = kinds.add_parser("dead-letters", help="messages of the dead-letter subscriptions")
    letters.add_argument(
        "--function",
        choices=(STORE, DELETE, EXPORT, LEDGER),
        help=f"only whose, follow-ups too; {LEDGER}: outcomes (default: all)",
    )
    for one in (quarantine, letters):
        add_flags(one)
    flags = parser.parse_args(arguments)
    if flags.kind == "quarantine":
        return run(
            "replay",
            flags.system,
            lambda places: replay_quarantine(places, flags.prefix, flags.dry_run),
        )
    return run(
        "replay",
        flags.system,
        lambda places: replay_dead_letters(places, _whose(places, flags.function), flags.dry_run),
    )


def _whose(places: Places, function: str | None) -> list[str]:
    """A function's dead letters are those of its follow-ups too."""
    names = list(places.dead_letters)
    return [name for name in names if function in (None, name.partition("/")[0])]


def replay_quarantine(places: Places, prefix: str, dry_run: bool) -> Progress:
    """Bring objects back to the landing bucket.

    Returns:
        The counts: replayed (or to replay), name taken, without its object.

    Raises:
        PermanentError: a bucket does not exist.
        RetryableError: Cloud Storage is away; what was brought back so far is out of quarantine.
    """
    progress = Progress("to replay" if dry_run else "replayed")
    for listed, note in _notes(places, prefix, progress):
        kept = ObjectRef(listed.ref.bucket, listed.ref.name.removesuffix(NOTE_ENDING))
        deadline = Deadline(_CALL_S)
        there = places.buckets.stat(kept, deadline)
        now = places.buckets.stat(ObjectRef(note.source.bucket, note.source.name), deadline)
        if there is None:
            progress.count("without its object")
        elif now is not None and now.crc32c != there.crc32c:
            progress.count("name taken")
        else:
            if not dry_run:
                _bring_back(places, there, listed, note, now is None)
            progress.count(progress.done)
    return progress


def _bring_back(
    places: Places, kept: StoredObject, listed: StoredObject, note: Note, copy: bool
) -> None:
    deadline = Deadline(_CALL_S)
    if copy:  # else an earlier run was cut off after it
        try:
            places.buckets.copy(kept.ref, note.source.bucket, note.source.name, deadline)
        except SupersededError:
            return  # quarantined anew this moment: for the next run
    places.buckets.delete(kept.ref, deadline)
    places.buckets.delete(listed.ref, deadline)


def _notes(places: Places, prefix: str, progress: Progress) -> Iterator[tuple[StoredObject, Note]]:
    for one in places.buckets.list(places.buckets_by_role["quarantine"], prefix, Deadline(_DAY_S)):
        if not one.ref.name.endswith(NOTE_ENDING):
            continue
        deadline = Deadline(_CALL_S)
        try:
            with places.buckets.open(one.ref, deadline) as response:
                note = Note.load(read_all(response, deadline, NOTE_LIMIT_BYTES))
        except SupersededError:
            continue
        except ValueError:
            progress.count("unreadable notes")
            continue
        if note.source.bucket == places.buckets_by_role["landing"]:
            yield one, note
        else:
            progress.count("of another bucket")


def replay_dead_letters(places: Places, functions: Sequence[str], dry_run: bool) -> Progress:
    """Publish dead letters again.

    Args:
        functions: whose: names of functions, `FUNCTION/follow-ups`, LEDGER.

    Returns:
        The counts: replayed (or to replay), and of them by function.

    Raises:
        PermanentError: there is no such subscription.
        RetryableError: Pub/Sub is away; what was published so far is acknowledged.
    """
    progress = Progress("to replay" if dry_run else "replayed")
    for function in functions:
        subscription = places.dead_letters[function]
        held: list[Held] = []
        for messages in places.subscriptions.until_empty(subscription):
            for message in messages:
                if not dry_run:
                    _publish_again(places, function, message)
                progress.count(progress.done)
                progress.count(f"of {function}")
            if dry_run:
                held += messages
            else:
                places.subscriptions.acknowledge(subscription, messages, Deadline(_CALL_S))
        places.subscriptions.give_back(subscription, held, Deadline(_CALL_S))
    return progress


def _publish_again(places: Places, function: str, message: Held) -> None:
    """With its age: a delete that was ordered long ago must not destroy what was stored since."""
    attributes = {
        key: value for key, value in message.attributes.items() if not key.startswith(_ADDED)
    }
    topic = places.topics_by_role[places.roles[function]]
    places.topics.publish(
        topic, message.data, {**attributes, FIRST_PUBLISHED: _first(message)}, Deadline(_CALL_S)
    )


def _first(message: Held) -> str:
    """The earliest of what an earlier replay, the dead-lettering and Pub/Sub say; `unknown` when
    one is no time."""
    said = [
        message.attributes[key]
        for key in (FIRST_PUBLISHED, _SOURCE_TIME)
        if key in message.attributes
    ]
    times = {timestamp(text): text for text in (*said, message.published)}
    return "unknown" if None in times else times[min(time for time in times if time)]
