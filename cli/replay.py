"""`replay quarantine|dead-letters`: after a fix, try again what failed.

An object in quarantine is copied to its old name in the landing bucket, which is an upload like any
other, and then deleted from quarantine. It stays there if its old name now has other bytes, or if
store_upload has not deleted the original yet. A dead letter is published again on its topic, with
the time when it was first published, and then acknowledged; so is an outcome that could not be
written to the ledger.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import click

from cli.clients import CALL_S, Clients
from cli.dead_letters import (
    SOURCE,
    SOURCE_TIME,
    Held,
    acknowledge,
    function_option,
    give_back,
    lent,
    subscription,
    until_empty,
)
from cli.errors import exit_status
from cli.options import dry_run_option, system_option
from cli.output import note
from cli.progress import Progress
from cli.quarantine import sidecars, text_of
from functions.common.deadline import parsed_rfc3339
from functions.common.events.messages import FIRST_PUBLISHED
from functions.common.resources import ObjectRef
from functions.store.sidecar import SIDECAR_ENDING, Sidecar

# Attributes that dead-lettering or a client library added.
_ADDED: Final = (SOURCE, "googclient_")
# The library's rewrite sends a body, so the copy gets only the properties that the body names.
_KEPT: Final = (
    "content_type",
    "content_encoding",
    "content_disposition",
    "content_language",
    "cache_control",
    "custom_time",
    "metadata",
)
_REFUSED: Final = "refused by Pub/Sub"


@click.group()
def replay() -> None:
    """After a fix: upload again what is in quarantine, or publish dead letters again."""


@replay.command()
@click.option(
    "--prefix",
    default="",
    metavar="PREFIX",
    help="Only objects whose name in quarantine begins with this, such as rejected/.",
)
@dry_run_option
@system_option
def quarantine(clients: Clients, prefix: str, dry_run: bool) -> int:
    """Upload quarantined objects again.

    Each is copied to its old name in the landing bucket and deleted from quarantine. An object
    stays in quarantine if its old name now has other bytes.
    """
    note(f"replay: {clients.system.where}")
    replay_quarantine(clients, prefix, dry_run).end()
    return 0


@replay.command("dead-letters")
@function_option
@dry_run_option
@system_option
def dead_letters(clients: Clients, function: str | None, dry_run: bool) -> int:
    """Publish dead letters again on their topics."""
    note(f"replay: {clients.system.where}")
    progress = replay_dead_letters(clients, function, dry_run)
    progress.end()
    return exit_status(not progress.counts[_REFUSED])


def replay_quarantine(clients: Clients, prefix: str, dry_run: bool) -> Progress:
    """Copy objects from quarantine back to the landing bucket.

    Returns:
        The counts: replayed (or to replay), still being quarantined, name taken, without its
        object.
    """
    progress = Progress("to replay" if dry_run else "replayed")
    landing = clients.storage.bucket(clients.system.buckets["landing"])
    for blob, sidecar in _readable(clients, prefix, progress):
        name = blob.name.removesuffix(SIDECAR_ENDING)
        kept = blob.bucket.get_blob(name, timeout=CALL_S)
        if kept is None:
            # store_upload writes the object first: it was deleted, by a replay that was interrupted
            # or by a person.
            if not dry_run:
                _delete_sidecar(blob)
            progress.count("without its object")
            continue
        returning = _Returning(
            landing=landing,
            source=sidecar.source,
            kept=kept,
            sidecar=blob,
            now=landing.get_blob(sidecar.source.name, timeout=CALL_S),
        )
        if returning.is_still_there:
            progress.count("still being quarantined")
            continue
        if returning.is_name_taken:
            progress.count("name taken")
            continue
        if not dry_run:
            returning.bring_back()
        progress.count(progress.done)
    return progress


@dataclass(frozen=True)
class _Returning:
    """An object on its way from quarantine to the landing bucket.

    Args:
        source: the original, which the sidecar names.
        kept: the quarantined object.
        sidecar: the object with its sidecar.
        now: what the landing bucket has under the old name; None: nothing.
    """

    landing: Any
    source: ObjectRef
    kept: Any
    sidecar: Any
    now: Any

    @property
    def is_still_there(self) -> bool:
        """Whether the original is not deleted yet: store_upload deletes it last.

        The quarantined object will then be the only copy. A copy that an interrupted replay made
        has another generation.
        """
        return self.now is not None and self.now.generation == self.source.generation

    @property
    def is_name_taken(self) -> bool:
        """Whether the old name has other bytes now."""
        return self.now is not None and self.now.crc32c != self.kept.crc32c

    def bring_back(self) -> None:
        """Copy, then delete the object and its sidecar, each in the generation that was read."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        try:
            if self.now is None:  # else an earlier run was interrupted after the copy
                _copy(self.kept, self.landing.blob(self.source.name))
            _delete(self.kept)
        except (NotFound, PreconditionFailed):
            return  # quarantined again at this moment: left for the next run
        _delete_sidecar(self.sidecar)


def _delete(blob: Any) -> None:
    """Delete an object in the generation that was read, unless it is gone.

    Raises:
        PreconditionFailed: it has another generation.
    """
    from google.api_core.exceptions import NotFound

    # The library repeats a delete whose answer was lost, and then finds nothing.
    with contextlib.suppress(NotFound):
        blob.delete(if_generation_match=blob.generation, timeout=CALL_S)


def _delete_sidecar(blob: Any) -> None:
    """Delete a sidecar in the generation that was read, unless there is another one now."""
    from google.api_core.exceptions import PreconditionFailed

    with contextlib.suppress(PreconditionFailed):
        _delete(blob)


def _copy(source: Any, target: Any) -> None:
    """Within Cloud Storage; a large object takes several calls."""
    for attribute in _KEPT:
        value = getattr(source, attribute)
        if value is not None:
            setattr(target, attribute, value)
    token = None
    while True:
        token, _, _ = target.rewrite(source, token=token, if_generation_match=0, timeout=CALL_S)
        if token is None:
            return


def _readable(clients: Clients, prefix: str, progress: Progress) -> Iterator[tuple[Any, Sidecar]]:
    from google.api_core.exceptions import NotFound

    for blob in sidecars(clients, prefix):
        try:
            found = Sidecar.load(text_of(blob))
        except NotFound:
            continue
        except ValueError:
            progress.count("unreadable sidecars")
            continue
        if found.source.bucket == clients.system.buckets["landing"]:
            yield blob, found
        else:
            progress.count("of another bucket")


def replay_dead_letters(clients: Clients, function: str | None, dry_run: bool) -> Progress:
    """Publish dead letters again, each on the topic that it came from.

    Args:
        function: of this function and its follow-ups, or LEDGER; None: all.

    Returns:
        The counts: replayed (or to replay), in all and by name in `System.bound`; refused.
    """
    progress = Progress("to replay" if dry_run else "replayed")
    for name in clients.system.bound_of(function):
        if dry_run:
            with lent(clients, name) as held:
                _count(progress, name, held)
        else:
            _replay(clients, name, progress)
    return progress


def _replay(clients: Clients, name: str, progress: Progress) -> None:
    place = subscription(clients, name)
    refused: list[Held] = []
    try:
        for messages in until_empty(clients, place):
            refused += _replay_some(clients, name, messages, progress)
    finally:
        # Not before: they would come again.
        give_back(clients, place, refused)


def _replay_some(
    clients: Clients, name: str, messages: Sequence[Held], progress: Progress
) -> list[Held]:
    """Publish messages again; returns those that Pub/Sub refuses.

    What was published is acknowledged, and the rest given back, also after an error or Ctrl-C.
    """
    place = subscription(clients, name)
    topic = clients.system.topic(clients.system.bound[name]["topic"])
    published: list[Held] = []
    refused: list[Held] = []
    try:
        for message in messages:
            if _publish_again(clients, topic, message):
                published.append(message)
                _count(progress, name, [message])
            else:
                refused.append(message)
                progress.count(_REFUSED)
    finally:
        acknowledge(clients, place, published)
        tried = len(published) + len(refused)
        give_back(clients, place, messages[tried:])
    return refused


def _count(progress: Progress, name: str, messages: Sequence[Held]) -> None:
    for _ in messages:
        progress.count(progress.done)
        progress.count(f"of {name}")


def _publish_again(clients: Clients, topic: str, message: Held) -> bool:
    """Publish a message with its age: a delete requested long ago must not delete what was stored
    since. False if Pub/Sub refuses the message."""
    from google.api_core.exceptions import BadRequest

    attributes = {
        key: value for key, value in message.attributes.items() if not key.startswith(_ADDED)
    }
    attributes[FIRST_PUBLISHED] = _first_published(message)
    try:
        clients.publish(topic, message.data, attributes)
    except BadRequest:
        return False
    return True


def _first_published(message: Held) -> str:
    """The earliest time that an earlier replay, the dead-lettering or Pub/Sub noted; `unknown` when
    one of them is not a time."""
    noted = [
        message.attributes[key]
        for key in (FIRST_PUBLISHED, SOURCE_TIME)
        if key in message.attributes
    ]
    times: dict[datetime, str] = {}
    for text in (*noted, message.published):
        time = parsed_rfc3339(text)
        if time is None:
            return "unknown"
        times[time] = text
    return times[min(times)]
