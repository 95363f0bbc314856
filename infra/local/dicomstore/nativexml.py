"""DICOM JSON as a Native DICOM Model in XML (PS3.19 annex A.1), on one line like the service's
(fact sheet 3.2)."""

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from infra.local.dicomstore import choices, model, slices

Attributes = dict[str, Any]

# Characters that XML 1.0 (section 2.2) does not allow; a text may contain a form feed.
NOT_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
END = "</NativeDicomModel>"


def report(dataset: Attributes) -> str:
    """A store report: the bare root that the service's reports have."""
    return "<NativeDicomModel>" + _attributes(dataset, {}) + END


def document(lines: list[str], instance_url: str) -> Iterator[bytes]:
    """A data set kept as lines (`model.py`), an attribute at a time: one may be large."""
    return slices.gathered(_pieces(lines, instance_url))


def _pieces(lines: list[str], instance_url: str) -> Iterator[bytes]:
    creators: dict[str, str] = {}
    for line in lines:
        if _is_creator(line[1:9]):
            creators.update(_creators(json.loads("{" + line + "}")))
    yield choices.METADATA_XML_ROOT.encode()
    for line in lines:
        attribute = json.loads(model.join([line], instance_url))
        yield _attributes(attribute, creators).encode()
    yield END.encode()


def _attributes(dataset: Attributes, creators: dict[str, str]) -> str:
    """The attributes of a data set or item.

    A private attribute has its creator in place of the block number (table A.1.5-2); without a
    known creator it is unchanged, so that two attributes do not become one.
    """
    out = []
    for tag, attribute in dataset.items():
        keyword = keyword_for_tag(int(tag, 16)) or attribute.get("keyword", "")
        creator = attribute.get("privateCreator", "")
        if not creator and tag[:6] in creators and not _is_creator(tag):
            creator = creators[tag[:6]]
            tag = f"{tag[:4]}00{tag[6:]}"
        head = f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}"'
        if keyword:
            head += f" keyword={quoteattr(keyword)}"
        if creator:
            head += f" privateCreator={quoteattr(_clean(creator))}"
        out.append(f"{head}>{_value(attribute)}</DicomAttribute>")
    return "".join(out)


def _is_creator(tag: str) -> bool:
    """Whether a tag reserves a block of private ones (PS3.5 7.8.1)."""
    return tag[3] in "13579BDF" and tag[4:6] == "00" and tag[6:] >= "10"


def _creators(dataset: Attributes) -> dict[str, str]:
    """Group and block of private attributes, with the creator of each."""
    found = {}
    for tag, attribute in dataset.items():
        values = attribute.get("Value")
        if _is_creator(tag) and values and isinstance(values[0], str):
            found[tag[:4] + tag[6:]] = values[0]
    return found


def _value(attribute: Attributes) -> str:
    if "BulkDataURI" in attribute:
        return f"<BulkData uri={quoteattr(attribute['BulkDataURI'])}/>"
    if "InlineBinary" in attribute:
        return f"<InlineBinary>{attribute['InlineBinary']}</InlineBinary>"
    values = enumerate(attribute.get("Value", ()), 1)
    if attribute["vr"] == "SQ":
        return "".join(
            f'<Item number="{number}">{_attributes(item, _creators(item))}</Item>'
            for number, item in values
        )
    if attribute["vr"] == "PN":
        return "".join(
            f'<PersonName number="{number}">{_name(value or {})}</PersonName>'
            for number, value in values
        )
    # A value of no length has an element as well: the numbers go up by one.
    return "".join(f'<Value number="{number}">{_text(value)}</Value>' for number, value in values)


def _name(groups: dict[str, str]) -> str:
    out = []
    for group, text in groups.items():
        parts = zip(NAME_PARTS, text.split("^"), strict=False)
        inner = "".join(f"<{name}>{_text(part)}</{name}>" for name, part in parts if part)
        out.append(f"<{group}>{inner}</{group}>")
    return "".join(out)


def _text(value: object) -> str:
    if value is None:
        return ""
    # A bare carriage return would be read as a line feed.
    return escape(_clean(str(value)), {"\r": "&#13;"})


def _clean(text: str) -> str:
    return NOT_XML.sub("", text)
