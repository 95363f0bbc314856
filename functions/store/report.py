"""The DICOM store's answer to a store request (PS3.18 section 10.5.3), read and not guessed from
the status.

XML or JSON, an object or an array of one; a 200 may hold failures and a 409 stored instances. The
texts of the failures are looked into for two known meanings and then forgotten: they may hold
patient data.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _REASON = "00081155", "00081197"
_DETAILS: Final = (
    "00090097",
    "00091097",
)  # FailureDetail in XML, FailureDetailJSON (fact sheet section 3.2)
_DUPLICATE_REASON: Final = 0x0111  # PS3.18 annex I: duplicate SOP instance; other servers use it
_EXISTS: Final = re.compile(r"already\s+exist", re.IGNORECASE)
_BUSY: Final = re.compile(
    r"\bdelet\w*\b.*\b(operation|progress|running)\b|\boperation\b.*\bdelet",
    re.IGNORECASE | re.DOTALL,
)
_ITEMS_MAX: Final = 10_000

Kind = Literal["exists", "busy", "refused"]
Attributes = Mapping[str, Any]


class UnreadableReportError(Exception):
    """The answer is no report that can be read."""


@dataclass(frozen=True)
class Failure:
    """An instance that was not stored.

    Args:
        kind: exists: an instance of these UIDs is there already; busy: a delete runs on its study
            or series; refused: anything else.
        code: the failure reason of PS3.18, such as 272; 0 where the report gives none.
        instance: the SOP Instance UID, or empty where the report does not say.
    """

    kind: Kind
    code: int = 0
    instance: str = ""


@dataclass(frozen=True)
class Report:
    """What was stored (SOP Instance UIDs) and what was not."""

    stored: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    def failure_of(self, instance: str) -> Failure | None:
        """The failure of a request that held this instance and no other; None when it was
        stored."""
        named = [failure for failure in self.failures if failure.instance == instance]
        unnamed = [failure for failure in self.failures if not failure.instance]
        if instance in self.stored and not named:
            return None
        return next(iter(named or unnamed or self.failures), None)


def parse(body: bytes) -> Report:
    """Read a report.

    Raises:
        UnreadableReportError: it is neither form, or neither says what was stored nor what was not.
    """
    text = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        attributes = _xml(text) if text.startswith(b"<") else _json(text)
        stored = tuple(_text(item, _INSTANCE) for item in _items(attributes, _REFERENCED))
        failures = tuple(_failure(item) for item in _items(attributes, _FAILED))
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise UnreadableReportError from error
    if not stored and not failures:
        raise UnreadableReportError
    return Report(stored, failures)


def _failure(item: Attributes) -> Failure:
    detail = " ".join(_text(item, tag) for tag in _DETAILS)
    code = _text(item, _REASON)
    number = int(code) if code.isascii() and code.isdigit() and len(code) < 7 else 0
    kind: Kind = "refused"
    if _EXISTS.search(detail) or number == _DUPLICATE_REASON:
        kind = "exists"
    elif _BUSY.search(detail):
        kind = "busy"
    return Failure(kind, number, _text(item, _INSTANCE))


def _items(attributes: Attributes, tag: str) -> Iterator[Attributes]:
    values = (attributes.get(tag) or {}).get("Value") or []
    if not isinstance(values, list) or len(values) > _ITEMS_MAX:
        raise ValueError
    yield from values


def _text(item: Attributes, tag: str) -> str:
    values = (item.get(tag) or {}).get("Value") or []
    return str(values[0]) if isinstance(values, list) and values and values[0] is not None else ""


def _json(text: bytes) -> Attributes:
    document = json.loads(text)
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        raise ValueError  # noqa: TRY004 (of the document, not of an argument)
    return document


def _xml(text: bytes) -> Attributes:
    """A Native DICOM Model (PS3.19 annex A) in the shape of DICOM JSON, sequences and plain values
    only."""
    from xml.etree import ElementTree

    if b"<!" in text:
        raise ValueError  # no entities, no document types: such an answer is no report
    try:
        return _attributes(ElementTree.fromstring(text))  # noqa: S314 (entities are refused above)
    except ElementTree.ParseError as error:
        raise ValueError from error


def _attributes(parent: Any) -> Attributes:
    found: dict[str, Any] = {}
    for element in parent:
        if _name(element) == "DicomAttribute":
            values = [
                _attributes(v) if _name(v) == "Item" else (v.text or "").strip() for v in element
            ]
            found[str(element.get("tag"))] = {"vr": str(element.get("vr")), "Value": values}
    return found


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]  # with or without a namespace
