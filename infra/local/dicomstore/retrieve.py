"""Retrieve (WADO-RS): one view for each kind of resource (fact sheet section 5).

All answers are streams. Most errors are found with the first part, while a status can still be
chosen; if a later part fails, the body breaks off without its closing boundary.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import flask

from infra.local.dicomstore import choices, frames, pixels, rendered, transcode, wado
from infra.local.dicomstore.frames import refuse
from infra.local.dicomstore.media import Media, MissingError
from infra.local.dicomstore.rows import Instance
from infra.local.dicomstore.urls import INSTANCE, SERIES, STUDY, Place

if TYPE_CHECKING:
    from infra.local.dicomstore.app import Store

IMAGES: tuple[Media, ...] = ()
if choices.PIXELS_OF_INSTANCES:
    IMAGES = pixels.OF_INSTANCES


class Retrieve:
    """The views; each takes the variables of its URL."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._index = store.index
        for path in (STUDY, SERIES, INSTANCE):
            store.route("GET", path, self.whole)
            store.route("GET", path + "/metadata", self.metadata)
        store.route("GET", INSTANCE + "/bulkdata/<path:path>", self.bulkdata)
        store.route("GET", INSTANCE + "/frames/<frames>", self.frames)
        store.route("GET", INSTANCE + "/rendered", self.rendered)
        store.route("GET", INSTANCE + "/frames/<frames>/rendered", self.rendered)

    def whole(self, **args: str) -> flask.Response:
        """A study, a series, an instance: as DICOM files, or their frames as images."""
        place = self._store.place(args)
        offers = wado.MULTIPART
        if place.uids.instance:
            offers = (*offers, *wado.SINGLE)
        answer = self._store.accept((*offers, *IMAGES))
        found = self._store.instances(place)
        if answer.part and answer.part != "application/dicom":
            return _multipart(self._images(place, found, answer), answer)
        for one in found:
            transcode.check(one.syntax, one.size, answer.syntax)
        parts = self._files(found, answer.syntax)
        if answer.part:
            return _multipart(parts, answer)
        part = next(parts, None)
        if not part:
            raise wado.missing("instance")
        headers = {"Content-Length": str(part.size)}
        return flask.Response(part.pieces, content_type=part.kind, headers=headers)

    def _files(self, found: list[Instance], wanted: str) -> Iterator[wado.Part]:
        """Instances in a transfer syntax; without those deleted in the meantime."""
        for one in found:
            syntax = wanted
            if wanted == "*":
                syntax = one.syntax
            try:
                path = self._index.files / one.file
                size, pieces = transcode.instance(path, one.syntax, wanted)
            except MissingError:
                continue
            yield wado.Part(f"application/dicom; transfer-syntax={syntax}", pieces, size=size)

    def _images(self, place: Place, found: list[Instance], answer: Media) -> Iterator[wado.Part]:
        """Every frame of instances; those without pixels have no part."""
        some = False
        for one in found:
            with contextlib.suppress(MissingError):
                for part in self._frames_of(place, one, "", answer):
                    some = True
                    yield part
        if not some:
            raise refuse("the instances have no pixel data")

    def frames(self, **args: str) -> flask.Response:
        """Frames of an instance, by their numbers."""
        place = self._store.place(args)
        answer = self._store.accept(pixels.FRAMES)
        (one,) = self._store.instances(place)
        parts = self._frames_of(place, one, args["frames"], answer)
        return _multipart(parts, answer)

    def _frames_of(
        self,
        place: Place,
        one: Instance,
        wanted: str,
        answer: Media,
    ) -> Iterator[wado.Part]:
        """The frames of an instance that a list such as `1,3` names.

        An empty list means all frames; an instance without pixels has none.
        """
        with wado.scanned(self._index.files / one.file) as file:
            has_pixels = any(tag in file.elements for tag in frames.KEYWORDS)
            if not wanted and not has_pixels:
                return
            image = frames.image_of(file)
            chosen: Iterable[int] = range(image.frames)
            if wanted:
                chosen = frames.numbers(wanted, image)
            for number in chosen:
                kind, pieces = pixels.frame(file, image, number, answer)
                location = f"{place.base}/{one.uids.path}/frames/{number + 1}"
                yield wado.Part(kind, pieces, location)

    def rendered(self, **args: str) -> flask.Response:
        """An instance, or one frame of it, as a picture."""
        place = self._store.place(args)
        answer = self._store.accept(pixels.RENDERED)
        (one,) = self._store.instances(place)
        path = self._index.files / one.file
        wanted = args.get("frames", str(choices.RENDERED_MULTI_FRAME))
        viewport = flask.request.args.get("viewport", "")
        with wado.scanned(path) as file:
            numbers = frames.numbers(wanted, frames.image_of(file))
            if len(numbers) > 1:
                raise refuse("one frame can be rendered at a time")
            data = rendered.rendered(file, numbers[0], answer.type, viewport)
        return flask.Response(data, content_type=answer.type)

    def metadata(self, **args: str) -> flask.Response:
        """The attributes of instances, as JSON or XML."""
        place = self._store.place(args)
        answer = self._store.accept(wado.METADATA)
        found = self._store.instances(place)
        if answer.part:
            documents = wado.metadata_xml(self._index, found, place.base)
            header, body = wado.multipart(documents, answer.part)
            return flask.Response(body, content_type=header)
        text = wado.metadata_json(self._index, found, place.base)
        return flask.Response(text, content_type="application/dicom+json; charset=utf-8")

    def bulkdata(self, **args: str) -> flask.Response:
        """The value of one attribute."""
        place = self._store.place(args)
        answer = self._store.accept(wado.BULKDATA)
        (one,) = self._store.instances(place)
        path = self._index.files / one.file
        attribute = args["path"]
        if choices.BULK_TRAILING_SLASH:
            attribute = attribute.removesuffix("/")

        def content() -> Iterator[bytes]:
            with wado.scanned(path) as file:
                element = wado.bulk_element(file, attribute)
                yield from wado.bulk_pieces(file, element)

        rest = content()
        # The first piece is read at once: errors are found while a status can be chosen.
        first = next(rest, b"")
        pieces = itertools.chain([first], rest)
        if not answer.part:
            return flask.Response(pieces, content_type=str(answer))
        kind = f"{answer.part}; transfer-syntax={answer.syntax}"
        part = wado.Part(kind, pieces)
        header, body = wado.multipart([part], answer.part, answer.syntax)
        return flask.Response(body, content_type=header)


def _first(parts: Iterator[wado.Part]) -> tuple[wado.Part, Iterator[wado.Part]]:
    """The first part, and those after it. Raises ApiError: there is none, or why it failed."""
    part = next(parts, None)
    if not part:
        raise wado.missing("instance")
    return part, parts


def _multipart(parts: Iterator[wado.Part], answer: Media) -> flask.Response:
    first, rest = _first(parts)
    chained = itertools.chain([first], rest)
    header, body = wado.multipart(chained, answer.part, answer.syntax)
    return flask.Response(body, content_type=header)
