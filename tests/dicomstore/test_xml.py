"""Metadata as XML: a Native DICOM Model (PS3.19 annex A.1) of every instance, sections 5.4 and 17.

Each file is read back from its XML by the rules of PS3.19 alone, and compared with the metadata as
JSON, which other tests compare with the file.
"""

import contextlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicomstore.kit import BUNDLED, Client, dataset, part10, parts_of

XML = 'multipart/related; type="application/dicom+xml"'
SPACE = "{http://www.w3.org/XML/1998/namespace}space"
NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
WHOLE_NUMBERS = ("IS", "US", "SS", "UL", "SL", "UV", "SV")
NUMBERS = ("DS", "FL", "FD")


# Not stored, so that there is no metadata: cut, without UIDs, or no composite instance.
REFUSED = (
    "ExplVR_BigEndNoMeta.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_truncated.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "UN_sequence.dcm",
    "empty_charset_LEI.dcm",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
    "no_meta.dcm",
    "no_meta_group_length.dcm",
    "priv_SQ.dcm",
    "rtplan_truncated.dcm",
)


def files() -> list[Path]:
    """Every file that comes with pydicom, but those that are refused."""
    return [path for path in sorted(BUNDLED.glob("*.dcm")) if path.name not in REFUSED]


def stored(store: Client, file: bytes) -> str:
    """Store a file; the URL of its instance."""
    answer = store.post(file, Accept="application/dicom+json")
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["00081199"]["Value"]
    return str(item["00081190"]["Value"][0])


def metadata(store: Client, file: bytes) -> tuple[ElementTree.Element, dict[str, Any]]:
    """Store a file; its metadata: the root of its XML, and its JSON."""
    url = stored(store, file)
    ((kind, body),) = parts_of(store.get(f"{url}/metadata", XML))
    assert kind == "application/dicom+xml"
    (item,) = store.get(f"{url}/metadata").json()
    return ElementTree.fromstring(body), item


def read(parent: ElementTree.Element) -> dict[str, Any]:
    """The DICOM JSON that a data set in XML stands for.

    A private attribute gets the number of its block back from the attribute that reserves it.
    """
    blocks = {}
    for attribute in parent.findall("DicomAttribute"):
        tag = attribute.attrib["tag"]
        private = int(tag[:4], 16) % 2 == 1
        if private and "privateCreator" not in attribute.attrib and tag[4:6] == "00":
            blocks[tag[:4], attribute.findtext("Value")] = tag[6:]
    found = {}
    for attribute in parent.findall("DicomAttribute"):
        tag = attribute.attrib["tag"]
        creator = attribute.attrib.get("privateCreator")
        if creator is not None:
            assert tag[4:6] == "00", "table A.1.5-2: gggg00ee"
            tag = tag[:4] + blocks[tag[:4], creator] + tag[6:]
        found[tag] = _attribute(attribute)
    return found


def _attribute(attribute: ElementTree.Element) -> dict[str, Any]:
    vr = attribute.attrib["vr"]
    found: dict[str, Any] = {"vr": vr}
    children = list(attribute)
    numbers = [child.attrib.get("number") for child in children]
    bulk = attribute.find("BulkData")
    inline = attribute.find("InlineBinary")
    if bulk is not None:
        found["BulkDataURI"] = bulk.attrib["uri"]
    elif inline is not None:
        found["InlineBinary"] = inline.text
    elif children:
        assert numbers == [str(number) for number in range(1, len(children) + 1)]
        found["Value"] = [_value(child, vr) for child in children]
    return found


def _value(child: ElementTree.Element, vr: str) -> Any:
    if vr == "SQ":
        assert child.tag == "Item"
        return read(child)
    if vr == "PN":
        assert child.tag == "PersonName"
        groups = {group.tag: _name(group) for group in child}
        return groups or None
    assert child.tag == "Value"
    if not child.text:
        return None
    with contextlib.suppress(ValueError):  # a damaged file may hold anything
        if vr in WHOLE_NUMBERS:
            return int(child.text)
        if vr in NUMBERS:
            return float(child.text)
    return child.text


def _name(group: ElementTree.Element) -> str:
    return "^".join(group.findtext(part) or "" for part in NAME_PARTS).rstrip("^")


def expected(item: dict[str, Any]) -> dict[str, Any]:
    """DICOM JSON without what XML writes in another way: a name's trailing empty parts."""
    found = {}
    for tag, attribute in item.items():
        values = attribute.get("Value")
        if values is not None:
            attribute = {**attribute, "Value": [_plain(value) for value in values]}
        found[tag] = attribute
    return found


def _plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() <= {"Alphabetic", "Ideographic", "Phonetic"} and value:
        return {group: text.rstrip("^") for group, text in value.items()}
    return expected(value)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_5_4_the_xml_of_every_file_has_the_same_values_as_its_json(
    store: Client, path: Path
) -> None:
    root, item = metadata(store, path.read_bytes())
    assert read(root) == expected(item)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_5_4_every_known_attribute_has_its_keyword_and_every_private_one_its_creator(
    store: Client, path: Path
) -> None:
    root, _ = metadata(store, path.read_bytes())
    for attribute in root.iter("DicomAttribute"):
        tag = attribute.attrib["tag"]
        keyword = pydicom.datadict.keyword_for_tag(int(tag, 16))
        if int(tag[:4], 16) % 2 == 0:
            assert attribute.attrib.get("keyword", "") == keyword
            assert "privateCreator" not in attribute.attrib


def test_5_4_the_root_keeps_white_space(store: Client) -> None:
    root, _ = metadata(store, part10(dataset()))
    assert root.tag == "NativeDicomModel"
    assert root.attrib == {SPACE: "preserve"}


def test_5_4_private_attributes_name_their_creator_at_every_level(store: Client) -> None:
    ds = dataset()
    ds.private_block(0x0009, "ONE", create=True).add_new(0x01, "LO", "outer")
    ds.private_block(0x0009, "TWO", create=True).add_new(0x01, "LO", "of another")
    inner = Dataset()
    inner.private_block(0x0009, "THREE", create=True).add_new(0x02, "LO", "inner")
    ds.ReferencedStudySequence = Sequence([inner])
    root, item = metadata(store, part10(ds))
    shown = [
        (found.attrib["tag"], found.attrib["privateCreator"], found.findtext("Value"))
        for found in root.iter("DicomAttribute")
        if "privateCreator" in found.attrib
    ]
    assert sorted(shown) == [
        ("00090001", "ONE", "outer"),
        ("00090001", "TWO", "of another"),
        ("00090002", "THREE", "inner"),
    ]
    assert read(root) == expected(item)


def test_5_4_a_value_of_no_length_keeps_its_place(store: Client) -> None:
    root, _ = metadata(store, part10(dataset(ImageType=["MPG", "", "XR3"])))
    values = root.findall("./DicomAttribute[@tag='00080008']/Value")
    assert [(value.attrib["number"], value.text or "") for value in values] == [
        ("1", "MPG"),
        ("2", ""),
        ("3", "XR3"),
    ]


def test_5_4_names_in_three_groups(store: Client) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    root, _ = metadata(store, part10(dataset(SpecificCharacterSet="ISO_IR 192", PatientName=name)))
    found = root.find("./DicomAttribute[@tag='00100010']/PersonName")
    assert found is not None
    groups = [(group.tag, group.findtext("FamilyName")) for group in found]
    assert groups == [("Alphabetic", "Yamada"), ("Ideographic", "山田"), ("Phonetic", "やまだ")]


def test_5_4_bulk_data_is_where_the_xml_says(store: Client) -> None:
    ds = dataset()
    ds.add_new(0x00420011, "OB", b"%PDF")
    root, _ = metadata(store, part10(ds))
    bulk = root.find("./DicomAttribute[@tag='00420011']/BulkData")
    assert bulk is not None
    got = store.get(bulk.attrib["uri"], "application/octet-stream; transfer-syntax=*")
    assert got.content == b"%PDF"


def test_5_4_the_store_report_keeps_the_bare_root_that_the_service_was_seen_with(
    store: Client,
) -> None:
    assert store.post(part10(dataset())).text.startswith("<NativeDicomModel><DicomAttribute ")
