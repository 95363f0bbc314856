"""Joins the parts of all slices to one object: the zip, or metadata.ndjson. Cloud Storage does
this, without memory or a temporary file here.

    no object of that name               it is written
    a zip that this request has already  if the store has as many instances now, it is kept, and its
        completed                        numbers are repeated (completed_before); else replaced
    another one of the same kind         it is replaced
    anything else                        `conflict`
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from functions.api.requests import ExportRequest
from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.job import Job
from functions.export.parts import SMALL_CHUNK_BYTES, Part
from functions.export.result import totals_of
from functions.export.state import Plan, State
from functions.export.writer import KIND, RUN, conflict_error
from functions.export.zip_format import directory

_SOURCES_MAX: Final = 32  # of one compose call
# The key of a zip's metadata with its command, if nothing failed.
_COMPLETE_FOR: Final = "dicom-export-complete-for"
_CONTENT_TYPES: Final = {
    "zip": "application/zip",
    "ndjson": "application/x-ndjson",
}


def _joined_name(request: ExportRequest) -> str:
    """The name of the object that is made of all slices; empty when the format has none."""
    if request.format.joined == "ndjson":
        return request.below("metadata.ndjson")
    # A zip always has a resource: one of a query is refused as a command.
    resource = request.resource
    if request.format.joined == "zip" and resource:
        uid = resource.instance or resource.series or resource.study
        return request.below(f"{uid}.zip")
    return ""


# The object that is there already


def find_joined(job: Job) -> StoredObject | None:
    """The joined object in the destination that this export may replace because it is of the same
    kind.

    Raises:
        PermanentError: conflict, when the object of that name is something else.
    """
    name = _joined_name(job.request)
    if not name:
        return None
    stored = job.buckets.stat(ObjectRef(job.bucket, name), job.deadline)
    if stored and stored.metadata.get(KIND) != job.request.kind:
        raise conflict_error()
    return stored


def completed_before(job: Job) -> dict[str, int] | None:
    """The totals of the zip that this request has completed before. None when there is none, or
    when the DICOM store has another number of instances now.

    Raises:
        PermanentError: as find_joined.
    """
    stored = find_joined(job)
    resource = job.request.resource
    if stored is None or resource is None:
        return None
    if stored.metadata.get(_COMPLETE_FOR) != _command_of(job):
        return None
    totals = totals_of(stored)
    count = job.store.count(resource, totals["objects"] + 1, job.deadline)
    if count != totals["objects"]:
        return None
    return {**totals, "written": 0}


def _command_of(job: Job) -> str:
    """The request, and what it is for: another one with the same id may have another path."""
    return f"{job.key} {job.request.resource}"


# Joining


def join_parts(
    job: Job,
    state: State,
    plan: Plan,
    totals: Mapping[str, int],
) -> dict[str, Any]:
    """Join the parts of all slices.

    Args:
        plan: with every slice, also those that a slice has left to another (ending.py).

    Returns:
        The object's entry for the manifest; empty when there is none.

    Raises:
        PermanentError: conflict, when somebody has changed a part, or when the object of that name
            is something else.
        RetryableError: unavailable, when a part is gone because another delivery is cleaning up, or
            when another export wrote the object at the same time.
    """
    name = _joined_name(job.request)
    if not name:
        return {}
    joining = _Joining(job, state, plan)
    metadata = {KIND: job.request.kind, RUN: plan.run}
    sources = joining.sources()
    if job.request.format.joined == "zip":
        sources.append(joining.write_directory())
        metadata |= {key: str(number) for key, number in totals.items()}
        if not totals["failures"]:
            metadata[_COMPLETE_FOR] = _command_of(job)
    # Without sources, an earlier object is replaced by an empty one: otherwise it would look like
    # this export's.
    if not sources and find_joined(job) is None:
        return {}
    return joining.join(name, sources, metadata)


class _Joining:
    """The parts of one plan that become one object."""

    def __init__(self, job: Job, state: State, plan: Plan) -> None:
        self._job = job
        self._state = state
        self._plan = plan
        self._parts = state.parts(plan.run)

    def _written_parts(self) -> Iterator[Part]:
        """The parts as the slices have written them, in their order."""
        for name in self._plan.slices:
            part = self._state.result(self._plan.run, name).part
            if part:
                yield part

    def sources(self) -> list[ObjectRef]:
        """The parts that are not empty, each as it was written."""
        generations = self._parts.generations()
        found = []
        for part in self._written_parts():
            generation = generations.get(part.ref.name)
            if generation is None:
                raise RetryableError("unavailable")
            if generation != part.ref.generation:
                raise PermanentError("conflict", "a part of the export was changed by somebody")
            if part.size:
                found.append(part.ref)
        return found

    def write_directory(self) -> ObjectRef:
        """Write the end of the zip, which names the members of all parts."""
        data = directory((part.size, part.members) for part in self._written_parts())
        return self._parts.write(data, SMALL_CHUNK_BYTES).ref

    def join(
        self,
        name: str,
        sources: Sequence[ObjectRef],
        metadata: dict[str, str],
    ) -> dict[str, Any]:
        """Compose them, in several rounds if there are many."""
        try:
            while len(sources) > _SOURCES_MAX:
                sources = [self._compose_group(group) for group in _groups(sources)]
            stored = self._write_joined(name, sources, metadata)
        except SupersededError:
            # A part is gone: another delivery is cleaning up.
            raise RetryableError("unavailable") from None
        return {"name": name, "bytes": stored.size, "crc32c": stored.crc32c}

    def _write_joined(
        self,
        name: str,
        sources: Sequence[ObjectRef],
        metadata: dict[str, str],
    ) -> StoredObject:
        """Compose the object itself. It replaces only an object of its kind, as it was found here:
        somebody may have written another one since the planning."""
        earlier = find_joined(self._job)
        generation = earlier.ref.generation if earlier else 0
        try:
            return self._compose(
                name,
                sources,
                content_type=_CONTENT_TYPES[self._job.request.format.joined],
                metadata=metadata,
                if_generation_match=generation,
            )
        except PreconditionFailedError:
            # The object may be ours: our answer was lost, or another delivery of this export has
            # joined it.
            now = find_joined(self._job)
            if now and now.metadata.get(RUN) == self._plan.run:
                return now
            raise RetryableError("unavailable") from None

    def _compose_group(self, group: Sequence[ObjectRef]) -> ObjectRef:
        return self._compose(self._parts.name_of_new_part(), group).ref

    def _compose(
        self,
        name: str,
        sources: Sequence[ObjectRef],
        **options: Any,
    ) -> StoredObject:
        job = self._job
        if not sources:
            # There is nothing to join: join_parts says why the object is written nevertheless.
            return job.buckets.write_small(job.bucket, name, b"", job.deadline, **options)
        return job.buckets.compose(job.bucket, name, sources, job.deadline, **options)


def _groups(sources: Sequence[ObjectRef]) -> Iterator[Sequence[ObjectRef]]:
    for at in range(0, len(sources), _SOURCES_MAX):
        yield sources[at : at + _SOURCES_MAX]
