"""Find what lies in the landing bucket without an outcome in the ledger, and publish its event
again.

An event that Cloud Storage never sent, or that was dead-lettered, leaves such an object. What has
come lately is left alone: its outcome may be on its way. Publishing an event once more does no
harm; it is at most a duplicate. It says that it is to be gone through anew, also by a process that
remembers having begun with the object.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Final

from functions.common.clients.storage import StoredObject
from functions.common.clients.transport import chunks
from functions.common.deadline import Deadline, age_s, timestamp
from functions.common.events.messages import ANEW
from functions.common.events.outcomes import outcome_id
from functions.common.settings import STORE
from ops.places import Places, add_flags, run
from ops.progress import Progress

_HOUR_S: Final = 3600.0
_CALL_S: Final = 600.0


def main(arguments: list[str]) -> int:
    """Read the flags, compare, publish, print the counts; the exit status, as ops.places.run."""
    parser = argparse.ArgumentParser(prog="python -m ops reconcile", description=__doc__)
    parser.add_argument("--prefix", default="", help="look only at objects whose name begins so")
    parser.add_argument(
        "--older-than-s",
        type=float,
        default=_HOUR_S,
        help="leave younger objects alone, seconds (%(default)s)",
    )
    add_flags(parser)
    flags = parser.parse_args(arguments)
    return run(
        "reconcile",
        flags.system,
        lambda places: reconcile(places, flags.prefix, flags.older_than_s, flags.dry_run),
    )


def reconcile(places: Places, prefix: str, older_than_s: float, dry_run: bool) -> Progress:
    """Compare the landing bucket with the ledger.

    Args:
        older_than_s: seconds since an object was written, below which it is left alone.
        dry_run: publish nothing.

    Returns:
        The counts: objects, with an outcome, young, published (or to publish).

    Raises:
        PermanentError: a bucket or the topic does not exist.
        RetryableError: Cloud Storage or Pub/Sub is away.
    """
    progress = Progress("to publish" if dry_run else "published")
    known = _known(places, progress)
    bucket, topic = places.buckets_by_role["landing"], places.topics_by_role["uploads"]
    for one in places.buckets.list(bucket, prefix, Deadline(_HOUR_S * 24)):
        progress.count("objects")
        written = timestamp(one.updated)
        if bytes.fromhex(outcome_id(STORE, one.ref)) in known:
            progress.count("with an outcome")
        elif written is not None and age_s(written) < older_than_s:
            progress.count("too young")
        else:
            if not dry_run:
                places.topics.publish(
                    topic, _notification(one), _attributes(one), Deadline(_CALL_S)
                )
            progress.count(progress.done)
    return progress


def _known(places: Places, progress: Progress) -> set[bytes]:
    """The ids of all outcomes of whole objects."""
    known: set[bytes] = set()
    for one in places.buckets.list(
        places.buckets_by_role["ledger"], places.ledger_prefix, Deadline(_HOUR_S * 24)
    ):
        for line in _lines(places, one):
            record = json.loads(line)
            if (
                record.get("function") == STORE
                and "generation" in record
                and "member" not in record
            ):
                known.add(bytes.fromhex(record["id"]))
                progress.count("outcomes")
    return known


def _lines(places: Places, one: StoredObject) -> Iterator[bytes]:
    """Whole lines of an object, read as it arrives."""
    deadline, rest = Deadline(_CALL_S), b""
    with places.buckets.open(one.ref, deadline) as response:
        for chunk in chunks(response, deadline):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from filter(None, whole)
    if rest:
        yield rest


def _notification(one: StoredObject) -> bytes:
    """What Cloud Storage would have sent (JSON_API_V1), as far as it is used."""
    resource = {
        "kind": "storage#object",
        "bucket": one.ref.bucket,
        "name": one.ref.name,
        "generation": str(one.ref.generation),
        "size": str(one.size),
        "crc32c": one.crc32c,
        "contentType": one.content_type,
        "timeCreated": one.updated,
        "metadata": dict(one.metadata),
    }
    return json.dumps({key: value for key, value in resource.items() if value}).encode()


def _attributes(one: StoredObject) -> dict[str, str]:
    return {
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
        "bucketId": one.ref.bucket,
        "objectId": one.ref.name,
        "objectGeneration": str(one.ref.generation),
        ANEW: "reconcile",
    }
