"""The slices of an export, their items, and the pieces that become objects."""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from functions.common.resources import Resource


def uids_of(resource: Resource) -> dict[str, str]:
    """The UIDs of a resource, as in the manifest."""
    return {
        "study": resource.study,
        "series": resource.series,
        "instance": resource.instance,
    }


def failure(resource: Resource | None, reason: str, detail: str) -> dict[str, Any]:
    """A failure of the planning, as in the manifest.

    Args:
        resource: None for all matches of a query.
    """
    uids: dict[str, Any] = dict.fromkeys(("study", "series", "instance"), "")
    if resource:
        uids = {**uids_of(resource)}
    return {**uids, "reason": reason, "detail": detail}


@dataclass(frozen=True, order=True)
class Piece:
    """A piece becomes one object: an instance, or one frame of it (counted from 1; 0: the whole).

    With the format bulkdata an instance becomes as many objects as it has bulk data.
    """

    resource: Resource
    frame: int = 0

    @property
    def fields(self) -> dict[str, Any]:
        """As the manifest names it."""
        fields: dict[str, Any] = uids_of(self.resource)
        if self.frame:
            fields["frame"] = self.frame
        return fields

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Piece":
        """From `fields`."""
        resource = Resource(fields["study"], fields["series"], fields["instance"])
        return cls(resource, fields.get("frame", 0))

    def failure(self, reason: str, detail: str) -> dict[str, Any]:
        """As in the failures of the manifest."""
        return {**self.fields, "reason": reason, "detail": detail}


@dataclass(frozen=True)
class Item:
    """An instance, or its frames from `first` to `last`; both 0 for the whole instance."""

    resource: Resource
    first: int = 0
    last: int = 0

    @property
    def weight(self) -> int:
        """How many objects it becomes."""
        if not self.first:
            return 1
        return self.last - self.first + 1

    def to_json(self) -> list[Any]:
        """For a state object."""
        return [str(self.resource), self.first, self.last]

    @classmethod
    def parse(cls, value: Sequence[Any]) -> "Item":
        """From a state object."""
        path, first, last = value
        return cls(Resource.parse(path), first, last)

    def pieces(self) -> Iterator[Piece]:
        """What it becomes."""
        if not self.first:
            yield Piece(self.resource)
            return
        for frame in range(self.first, self.last + 1):
            yield Piece(self.resource, frame)


@dataclass
class Slice:
    """A part of an export that one invocation does.

    Args:
        streams: studies or series that can be retrieved as a whole, because all their instances are
            in this slice.
        items: all its instances and frames.
        skipped: instances without anything of the wanted kind, such as an image.
        failures: failures of the planning, as in the manifest.
    """

    streams: list[Resource] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    skipped: list[Resource] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """How many objects it becomes."""
        return sum(item.weight for item in self.items) + len(self.skipped)

    @property
    def pieces(self) -> list[Piece]:
        """What it becomes, in its order."""
        return [piece for item in self.items for piece in item.pieces()]

    def without(self, settled: Collection[Piece]) -> "Slice | None":
        """What is left when these pieces are settled; None if nothing is. The rest of a study or
        series is retrieved by instance."""
        left = [piece for piece in self.pieces if piece not in settled]
        if not left:
            return None
        begun = streams_of(piece.resource for piece in settled)
        return Slice(
            streams=[resource for resource in self.streams if resource not in begun],
            items=[Item(piece.resource, piece.frame, piece.frame) for piece in left],
        )

    def copy(self) -> "Slice":
        """The same slice, to which other items can be added."""
        return Slice([*self.streams], [*self.items], [*self.skipped], [*self.failures])

    def resources(self) -> Iterator[Resource]:
        """Every study, series and instance that it names."""
        yield from self.streams
        yield from self.skipped
        for item in self.items:
            yield item.resource

    def to_json(self) -> dict[str, Any]:
        """For a state object."""
        return {
            "streams": [str(resource) for resource in self.streams],
            "items": [item.to_json() for item in self.items],
            "skipped": [str(resource) for resource in self.skipped],
            "failures": self.failures,
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "Slice":
        """From a state object."""
        return cls(
            streams=[Resource.parse(path) for path in value["streams"]],
            items=[Item.parse(item) for item in value["items"]],
            skipped=[Resource.parse(path) for path in value["skipped"]],
            failures=value["failures"],
        )


def streams_of(done: Iterable[Resource]) -> set[Resource]:
    """The studies and series to which these instances belong."""
    found = set[Resource]()
    for one in done:
        found |= {Resource(one.study), Resource(one.study, one.series)}
    return found


def by_instance_uid(pieces: Sequence[Piece]) -> dict[str, Piece]:
    """The pieces by their SOP Instance UID, by which an instance is recognised in an answer. Those
    that share one are left out: they are retrieved by all three UIDs."""
    found = {piece.resource.instance: piece for piece in pieces}
    uses = Counter(piece.resource.instance for piece in pieces)
    return {uid: piece for uid, piece in found.items() if uses[uid] == 1}


def path_of(piece: Piece, tag: str = "") -> str:
    """The path of a piece's object without its extension, or of a part of it, called `tag`."""
    uids = piece.resource
    path = [uids.study, uids.series, uids.instance]
    if tag:
        path.append(tag)
    elif piece.frame:
        path.append(str(piece.frame))
    return "/".join(path)


def new_name() -> str:
    """A name that no other slice, plan or part has."""
    return secrets.token_hex(8)
