"""Files that are cut, damaged or unusual."""

import functools
import json

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from infra.local.dicomstore.index import instance_of
from infra.local.dicomstore.scan import NotDicomError, scan
from tests.dicomstore.kit import (
    AS_STORED,
    BUNDLED,
    CT,
    ONE,
    SINGLE,
    Client,
    dataset,
    dicom,
    gradient,
    image,
    part10,
)

MIB = 1 << 20


def nested() -> bytes:
    """A file with everything that is hard to cut: sequences of both kinds, private tags, pixels in
    fragments."""
    ds = pydicom.dcmread(BUNDLED / "MR_small_RLE.dcm")
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.9"
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([item])
    ds.ReferencedStudySequence = Sequence([outer, Dataset()])
    ds["ReferencedStudySequence"].is_undefined_length = True
    ds.add_new(0x00091001, "OB", b"private!")
    return part10(ds)


@pytest.mark.parametrize(
    "file", [nested(), part10(image(gradient())), dicom()], ids=["nested", "image", "text"]
)
def test_a_file_cut_anywhere_is_refused_or_stored_as_sent(store: Client, file: bytes) -> None:
    """A cut between two elements leaves a shorter data set that looks complete."""
    everywhere = range(0, len(file), 211)
    head = range(0, 400, 3)
    tail = range(len(file) - 40, len(file))
    for length in sorted({*everywhere, *head, *tail}):
        cut = file[:length]
        answer = store.post(cut)
        assert answer.status_code in (200, 409), (length, answer.text)
        if answer.status_code == 200:
            (found,) = store.found("instances", includefield=["0020000D", "0020000E"])
            path = f"studies/{found['0020000D']['Value'][0]}"
            assert cut in store.get(path, AS_STORED).content
            store.delete(path)


@functools.cache
def _originals() -> list[bytes]:
    names = (
        "rtplan.dcm",
        "reportsi.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "MR_small_implicit.dcm",
    )
    japanese = dicom(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"
    )
    return [nested(), japanese, *((BUNDLED / name).read_bytes()[:20_000] for name in names)]


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_bytes_make_the_scanner_fail_in_another_way(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(_originals())))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(file)))
    try:
        found = instance_of(scan(bytes(file[:length])))
    except NotDicomError:
        return
    # A line an attribute: together they are one JSON object.
    metadata = json.loads("{" + found.metadata.replace("\n", ",") + "}")
    assert all("vr" in attribute for attribute in metadata.values())


@pytest.mark.parametrize(
    "name",
    [
        "no_meta_group_length.dcm",
        "priv_SQ.dcm",
        "UN_sequence.dcm",
        "reportsi.dcm",
        "rtplan.dcm",
    ],
)
def test_a_file_with_an_unusual_encoding_is_kept_as_it_was_sent(store: Client, name: str) -> None:
    ds = pydicom.dcmread(BUNDLED / name, force=True)
    ds.StudyInstanceUID = "1.1"
    ds.SeriesInstanceUID = "1.1.1"
    ds.SOPInstanceUID = "1.1.1.1"
    ds.SOPClassUID = CT
    file = part10(ds)
    store.stored(file)
    path = "studies/1.1/series/1.1.1/instances/1.1.1.1"
    assert store.get(path, SINGLE).content == file
    assert store.get(f"{path}/metadata").status_code == 200


def test_group_lengths_and_files_without_preamble(store: Client) -> None:
    ds = dataset()
    ds.add_new(0x00080000, "UL", 120)
    ds.add_new(0x00200000, "UL", 60)
    whole = part10(ds)
    store.stored(whole[132:])  # starts with group 0002
    (item,) = store.get(ONE + "/metadata").json()
    assert "00080000" not in item
    assert item["00020010"]
    assert store.get(ONE, SINGLE).content == whole[132:]
