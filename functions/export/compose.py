"""Joins the parts of all slices to one object: the zip, or metadata.ndjson. Cloud Storage does it,
so that nothing passes through memory or a temporary file again."""

from collections.abc import Iterator
from typing import Any, Final

from functions.api.requests import ExportRequest
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.state import Part, Plan, State, totals_of
from functions.export.writer import KIND
from functions.export.zip_format import Member, directory

_SOURCES_MAX: Final = 32  # of one compose call
_CHUNK_BYTES: Final = 8 * 1024 * 1024
_COMPLETE: Final = "dicom-export-complete"
_CONTENT_TYPES: Final = {"zip": "application/zip", "ndjson": "application/x-ndjson"}


def joined_name(request: ExportRequest) -> str:
    """The name of the object that is made of all slices; empty when the format has none."""
    if request.format.joined == "ndjson":
        return request.below("metadata.ndjson")
    if request.format.joined == "zip" and request.resource:
        resource = request.resource
        return request.below(f"{resource.instance or resource.series or resource.study}.zip")
    return ""


def complete_zip(
    request: ExportRequest, key: str, store: DicomStore, buckets: Buckets, deadline: Deadline
) -> dict[str, int] | None:
    """The totals of a zip that this very request has made, while the DICOM store still has as many
    instances.

    Args:
        key: the export's id, as State has it.

    Raises:
        PermanentError: conflict, when what the request would join has the name of an object that is
            no such export's.
    """
    name = joined_name(request)
    if not name:
        return None
    stored = buckets.stat(ObjectRef(request.destination.bucket, name), deadline)
    if stored is None:
        return None
    if stored.metadata.get(KIND) != request.kind:
        raise PermanentError("conflict", "the destination has another object of that name")
    if request.resource is None or stored.metadata.get(_COMPLETE) != _mark(request, key):
        return None
    totals = totals_of(stored)
    count = store.count(request.resource, totals["objects"] + 1, deadline)
    if count != totals["objects"]:
        return None
    return {**totals, "written": 0}


def _mark(request: ExportRequest, key: str) -> str:
    return f"{key} {request.resource} {request.kind}"


def join_parts(
    state: State, plan: Plan, totals: dict[str, int], buckets: Buckets, deadline: Deadline
) -> dict[str, Any]:
    """Join the parts of all slices.

    Returns:
        The object as the manifest names it; empty when there is none.

    Raises:
        PermanentError: conflict, when somebody has changed a part.
        RetryableError: unavailable, when a part is gone: another delivery is just cleaning up.
    """
    name = joined_name(plan.request)
    if not name:
        return {}
    joining = _Joining(state, plan, buckets, deadline)
    metadata = {KIND: plan.request.kind}
    sources = joining.sources()
    if plan.request.format.joined == "zip":
        sources.append(joining.write_directory())
        metadata |= {key: str(number) for key, number in totals.items()}
        if not totals["failures"]:
            metadata[_COMPLETE] = _mark(plan.request, state.key)
    if not sources:
        return {}
    return joining.join(name, sources, metadata)


class _Joining:
    """The parts of one plan on their way to one object."""

    def __init__(self, state: State, plan: Plan, buckets: Buckets, deadline: Deadline) -> None:
        self._state, self._plan, self._buckets = state, plan, buckets
        self._bucket, self._deadline = plan.request.destination.bucket, deadline

    def _parts(self) -> Iterator[Part]:
        for name in self._plan.slices:
            part = self._state.result(self._plan.run, name).part
            if part:
                yield part

    def sources(self) -> list[ObjectRef]:
        """The parts that hold anything, in the order of the slices, each as it was written."""
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

        stored = self._buckets.write(
            self._bucket,
            self._state.part_name(self._plan.run),
            directory(members()),
            self._deadline,
            if_generation_match=None,
            chunk_bytes=_CHUNK_BYTES,
        )
        return stored.ref

    def join(self, name: str, sources: list[ObjectRef], metadata: dict[str, str]) -> dict[str, Any]:
        """Compose them, in several rounds where they are many."""
        try:
            while len(sources) > _SOURCES_MAX:
                sources = [self._joined(group) for group in _groups(sources)]
            stored = self._buckets.compose(
                self._bucket,
                name,
                sources,
                self._deadline,
                content_type=_CONTENT_TYPES[self._plan.request.format.joined],
                metadata=metadata,
            )
        except SupersededError:
            raise RetryableError("unavailable") from None
        return {"name": name, "bytes": stored.size, "crc32c": stored.crc32c}

    def _joined(self, group: list[ObjectRef]) -> ObjectRef:
        name = self._state.part_name(self._plan.run)
        return self._buckets.compose(self._bucket, name, group, self._deadline).ref


def _groups(sources: list[ObjectRef]) -> Iterator[list[ObjectRef]]:
    for at in range(0, len(sources), _SOURCES_MAX):
        yield sources[at : at + _SOURCES_MAX]
