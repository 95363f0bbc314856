"""Joins the parts of all slices to one object: the zip, or metadata.ndjson. Cloud Storage does
this, without memory or a temporary file here."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from functions.api.requests import ExportRequest
from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.job import Job
from functions.export.state import SMALL_CHUNK_BYTES, Part, Plan, State, totals_of
from functions.export.writer import KIND, RUN, another_object
from functions.export.zip_format import Member, directory

_SOURCES_MAX: Final = 32  # of one compose call
_COMPLETE: Final = "dicom-export-complete"
_CONTENT_TYPES: Final = {
    "zip": "application/zip",
    "ndjson": "application/x-ndjson",
}


def _joined_name(request: ExportRequest) -> str:
    """The name of the object that is made of all slices; empty when the format has none."""
    if request.format.joined == "ndjson":
        return request.below("metadata.ndjson")
    resource = request.resource
    if request.format.joined == "zip" and resource:
        uid = resource.instance or resource.series or resource.study
        return request.below(f"{uid}.zip")
    return ""


# What an earlier export has joined


def joined_before(job: Job) -> StoredObject | None:
    """The joined object of an earlier export of this kind, which this one replaces.

    Raises:
        PermanentError: conflict, when the object of that name is something else.
    """
    name = _joined_name(job.request)
    if not name:
        return None
    stored = job.buckets.stat(ObjectRef(job.bucket, name), job.deadline)
    if stored and stored.metadata.get(KIND) != job.request.kind:
        raise another_object()
    return stored


def is_complete(job: Job, key: str, stored: StoredObject) -> bool:
    """Whether the earlier object is a zip of the same request, with as many instances as the DICOM
    store has now.

    Args:
        key: the export's id, as State has it.
    """
    request = job.request
    is_of_request = stored.metadata.get(_COMPLETE) == _mark(request, key)
    if not is_of_request or request.resource is None:
        return False
    objects = totals_of(stored)["objects"]
    count = job.store.count(request.resource, objects + 1, job.deadline)
    return count == objects


def _mark(request: ExportRequest, key: str) -> str:
    return f"{key} {request.resource} {request.kind}"


# Joining


def join_parts(
    job: Job,
    state: State,
    plan: Plan,
    totals: Mapping[str, int],
) -> dict[str, Any]:
    """Join the parts of all slices.

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
            metadata[_COMPLETE] = _mark(job.request, state.key)
    if not sources and joined_before(job) is None:
        return {}
    return joining.join(name, sources, metadata)


class _Joining:
    """The parts of one plan that become one object."""

    def __init__(self, job: Job, state: State, plan: Plan) -> None:
        self._job = job
        self._state = state
        self._plan = plan

    def _parts(self) -> Iterator[Part]:
        for name in self._plan.slices:
            part = self._state.result(self._plan.run, name).part
            if part:
                yield part

    def sources(self) -> list[ObjectRef]:
        """The parts that are not empty, in the order of the slices."""
        there = self._state.parts(self._plan.run)
        names = {ref.name for ref in there}
        found = []
        for part in self._parts():
            stored = there.get(part.ref)
            if part.ref.name not in names:
                raise RetryableError("unavailable")
            if stored is None or stored.crc32c != part.crc32c:
                raise PermanentError("conflict", "a part of the export was changed by somebody")
            if part.size:
                found.append(part.ref)
        return found

    def write_directory(self) -> ObjectRef:
        """Write the end of the zip, which names the members of all parts."""

        def members() -> Iterator[tuple[int, list[Member]]]:
            for part in self._parts():
                yield part.size, list(part.members)

        data = directory(members())
        return self._state.write_part(self._plan.run, data, SMALL_CHUNK_BYTES).ref

    def join(
        self,
        name: str,
        sources: list[ObjectRef],
        metadata: dict[str, str],
    ) -> dict[str, Any]:
        """Compose them, in several rounds if there are many."""
        try:
            while len(sources) > _SOURCES_MAX:
                sources = [self._joined(group) for group in _groups(sources)]
            stored = self._last(name, sources, metadata)
        except SupersededError:
            raise RetryableError("unavailable") from None
        return {"name": name, "bytes": stored.size, "crc32c": stored.crc32c}

    def _last(
        self,
        name: str,
        sources: list[ObjectRef],
        metadata: dict[str, str],
    ) -> StoredObject:
        """Compose the object itself. It replaces only an object of its kind, as it was found here:
        somebody may have written another one since the planning."""
        earlier = joined_before(self._job)
        try:
            return self._compose(
                name,
                sources,
                content_type=_CONTENT_TYPES[self._job.request.format.joined],
                metadata=metadata,
                if_generation_match=earlier.ref.generation if earlier else 0,
            )
        except PreconditionFailedError:
            # It may be this one, whose answer was lost, or that another delivery has joined.
            now = joined_before(self._job)
            if now and now.metadata.get(RUN) == self._plan.run:
                return now
            raise RetryableError("unavailable") from None

    def _joined(self, group: list[ObjectRef]) -> ObjectRef:
        return self._compose(self._state.part_name(self._plan.run), group).ref

    def _compose(
        self,
        name: str,
        sources: list[ObjectRef],
        **options: Any,
    ) -> StoredObject:
        job = self._job
        if not sources:
            # Nothing was exported, and an earlier object must not seem to be of this export.
            return job.buckets.write_small(job.bucket, name, b"", job.deadline, **options)
        return job.buckets.compose(job.bucket, name, sources, job.deadline, **options)


def _groups(sources: list[ObjectRef]) -> Iterator[list[ObjectRef]]:
    for at in range(0, len(sources), _SOURCES_MAX):
        yield sources[at : at + _SOURCES_MAX]
