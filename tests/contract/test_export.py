"""Exports between a real DICOM store and a real bucket server: what is written, once, and
reported."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from functions.export import fetch
from functions.export.handler import handle
from tests.contract.exporting import TO, fill, manifest, names, run
from tests.contract.strictbucket import strict_buckets
from tests.contract.world import BUCKET, STATE, STORE_NAME, World, instance, world


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("studies/1.1", 6),
        ("studies/1.1/series/1.1.2", 3),
        ("studies/1.1/series/1.1.2/instances/1.1.2.1", 1),
        (f"{STORE_NAME}/dicomWeb/studies/1.1/series/1.1.2", 3),
    ],
)
def test_a_study_a_series_or_an_instance_arrives_byte_for_byte(
    store: World, path: str, count: int
) -> None:
    stored = fill(store, studies=2)
    record = run(store, path=path)
    assert record["counts"]["objects"] == count
    assert record["counts"]["written"] == count
    assert record["counts"]["failures"] == 0
    assert len(names(store)) == count
    for name in names(store):
        assert store.read(name) == stored[name]
    assert record["bytes"] == sum(len(stored[name]) for name in names(store))


def test_the_manifest_names_every_object_with_its_checksum(store: World) -> None:
    fill(store)
    run(store)
    found = store.objects("out/1.1")
    said = manifest(store)
    assert {entry["name"] for entry in said["objects"]} == set(found)
    for entry in said["objects"]:
        assert entry["crc32c"] == found[entry["name"]]["crc32c"]
        assert str(entry["bytes"]) == found[entry["name"]]["size"]
        assert entry["name"] == f"out/{entry['study']}/{entry['series']}/{entry['instance']}.dcm"
    assert said["complete"] is True
    assert said["failures"] == []
    assert said["skipped"] == []
    assert said["request_id"] == "r1"
    assert said["path"] == "studies/1.1"
    assert said["format"] == "dicom"


def test_a_study_is_one_answer_and_no_state_is_left(store: World) -> None:
    fill(store)
    run(store)
    assert store.requests("GET", "retrieve") == 1
    assert not store.left_over()


def generations(store: World) -> dict[str, Any]:
    """The generation of each object that an export of the study 1.1 wrote."""
    return {name: item["generation"] for name, item in store.objects("out/1.1").items()}


def test_running_it_again_writes_only_what_is_missing(store: World) -> None:
    stored = fill(store)
    run(store)
    before = generations(store)
    gone = sorted(before)[2]
    store.delete_object(gone)
    record = run(store)
    after = generations(store)
    assert record["counts"]["objects"] == 6
    assert record["counts"]["written"] == 1
    assert store.read(gone) == stored[gone]
    # All others are as they were.
    del before[gone]
    del after[gone]
    assert after == before
    assert store.requests("GET", "retrieve") == 2  # the study, then the one instance


@pytest.mark.parametrize("pixels", [32, 2048])  # 2048: larger than what is written in one piece
def test_an_instance_that_is_another_now_is_a_conflict(store: World, pixels: int) -> None:
    fill(store, series=1, pixels=pixels)
    run(store)
    before = generations(store)
    other = instance(
        "1.1",
        "1.1.1",
        "1.1.1.1",
        pixels=pixels,
        PatientName="Roe^Richard",
    )
    same = instance("1.1", "1.1.1", "1.1.1.2", pixels=pixels)
    store.remove("studies/1.1/series/1.1.1/instances/1.1.1.1")
    store.remove("studies/1.1/series/1.1.1/instances/1.1.1.2")
    store.put(other)
    store.put(same)
    record = run(store, expect="partial", request_id="r2")
    assert record["reason"] == "conflict"
    assert record["counts"]["objects"] == 2
    assert record["counts"]["written"] == 0
    (failure,) = manifest(store)["failures"]
    assert failure["instance"] == "1.1.1.1"
    assert generations(store) == before
    assert store.requests("GET", "retrieve") == 3  # the study, then the two


def test_metadata_as_xml(store: World) -> None:
    stored = fill(store)
    run(store, format="metadata-xml")
    wanted = {name.removesuffix(".dcm") + ".xml" for name in stored}
    assert names(store) == wanted
    for name in wanted:
        assert store.objects()[name]["contentType"] == "application/dicom+xml"
        root = ElementTree.fromstring(store.read(name))
        uid = root.findtext("DicomAttribute[@tag='00080018']/Value")
        assert root.tag == "NativeDicomModel"
        assert uid == Path(name).stem


@pytest.mark.parametrize("format_", ["metadata", "metadata-xml", "bulkdata", "png"])
def test_what_was_made_of_an_instance_that_is_another_now_is_a_conflict(
    store: World, format_: str
) -> None:
    fill(store, series=1)
    run(store, format=format_)
    store.remove("studies/1.1/series/1.1.1/instances/1.1.1.1")
    other = instance(
        "1.1",
        "1.1.1",
        "1.1.1.1",
        pixels=64,
        PatientName="Roe^Richard",
    )
    store.put(other)
    record = run(store, expect="partial", request_id="r2", format=format_)
    assert record["reason"] == "conflict"
    assert record["counts"]["objects"] == 2


def test_large_work_fans_out(small_slices: World) -> None:
    store = small_slices
    stored = fill(store, series=5, instances=3)
    store.put(*(instance("1.1", "1.1.9", f"1.1.9.{n}") for n in range(1, 31)))
    record = run(store)
    assert record["counts"] == {
        "objects": 45,
        "written": 45,
        "failures": 0,
        "skipped": 0,
    }
    assert store.deliveries > 10
    assert len(names(store)) == 45
    assert len(manifest(store)["objects"]) == 45
    assert all(store.read(name) == data for name, data in stored.items())
    assert not store.left_over()


def test_a_query_exports_all_it_matches(small_slices: World) -> None:
    store = small_slices
    fill(store, studies=5, instances=2)
    store.put(instance("2.1", "2.1.1", "2.1.1.1", PatientName="Roe^Richard"))
    (record,) = store.run(handle, {"query": "PatientName=Doe^Jane", "destination": TO})
    assert record["counts"]["objects"] == 20
    assert not [name for name in names(store) if "/2.1/" in name]
    (record,) = store.run(
        handle, {"query": "series?Modality=OT&StudyInstanceUID=1.1", "destination": f"{TO}/series"}
    )
    assert record["counts"]["objects"] == 4
    (record,) = store.run(
        handle, {"query": "instances?SOPInstanceUID=1.1.1.2", "destination": f"{TO}/one"}
    )
    assert record["counts"]["objects"] == 1
    (record,) = store.run(handle, {"query": "PatientID=none", "destination": TO})
    assert record["outcome"] == "rejected"
    assert record["reason"] == "not_found"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ({"path": "studies/9"}, "not_found"),
        ({"path": f"{STORE_NAME}2/dicomWeb/studies/1.1"}, "rejected"),
        ({"path": "elsewhere/dicomWeb/studies/1.1"}, "invalid_command"),
        ({"path": "studies/1.1/series/9/instances/9"}, "not_found"),
        ({"destination": "gs://elsewhere/out"}, "rejected"),
        ({"destination": f"gs://{BUCKET}/../x"}, "invalid_command"),
        ({"destination": f"gs://{BUCKET}/a//b"}, "invalid_command"),
        ({"destination": "out"}, "invalid_command"),
        ({"destination": None}, "invalid_command"),
        ({"format": "tiff"}, "invalid_command"),
        ({"transfer_syntax": "jpeg"}, "invalid_command"),
        ({"transfer_syntax": "1.2.840.10008.1.2.1", "format": "jpeg"}, "invalid_command"),
        ({"query": "PatientID=1"}, "invalid_command"),
        ({"formt": "jpeg"}, "invalid_command"),
        ({"run": "x"}, "invalid_event"),
        ({"slice": "0123456789abcdef"}, "invalid_command"),
    ],
)
def test_what_cannot_be_is_refused(store: World, command: dict[str, Any], reason: str) -> None:
    fill(store)
    record = run(store, expect="rejected", **command)
    assert record["reason"] == reason
    assert not store.objects()


def test_a_missing_bucket_is_reported(tmp_path: Path, buckets: str) -> None:
    with world(
        "export_resource", tmp_path, buckets_url=buckets, EXPORT_DESTINATIONS="gs://no-such-bucket"
    ) as store:
        fill(store)
        record = run(store, expect="rejected", destination="gs://no-such-bucket/out")
        assert record["reason"] == "not_found"
        assert record["detail"] == "the bucket does not exist"


def test_allow_list_is_by_folder(tmp_path: Path, buckets: str) -> None:
    with world(
        "export_resource", tmp_path, buckets_url=buckets, EXPORT_DESTINATIONS=f"gs://{BUCKET}/out"
    ) as store:
        store.clear_bucket()
        fill(store)
        assert (
            run(store, expect="rejected", destination=f"gs://{BUCKET}/outer")["reason"]
            == "rejected"
        )
        assert run(store, expect="rejected", destination=f"gs://{BUCKET}")["reason"] == "rejected"
        run(store, destination=f"gs://{BUCKET}/out/deeper")


def test_an_object_of_another_kind_is_a_conflict_and_is_left(store: World) -> None:
    stored = fill(store)
    name = sorted(stored)[0]
    store.write_object(name, b"something else")
    record = run(store, expect="partial")
    assert record["reason"] == "conflict"
    assert record["counts"]["failures"] == 1
    (failure,) = manifest(store)["failures"]
    assert failure["instance"] == "1.1.1.1"
    assert store.read(name) == b"something else"
    assert manifest(store)["complete"] is False


@pytest.mark.parametrize("format_", ["dicom", "zip"])
def test_two_instances_that_share_a_uid_are_not_mistaken_for_each_other(
    store: World, format_: str
) -> None:
    stored = {
        f"1.1/{series}/1.1.0.dcm": instance("1.1", series, "1.1.0") for series in ("1.1.1", "1.1.2")
    }
    store.put(*stored.values())
    assert run(store, format=format_)["counts"]["objects"] == 2
    if format_ == "dicom":
        assert {name: store.read(f"out/{name}") for name in stored} == stored
    else:
        with zipfile.ZipFile(io.BytesIO(store.read("out/1.1.zip"))) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == stored


@pytest.mark.parametrize(
    ("format_", "name"), [("zip", "out/1.1.zip"), ("metadata", "out/metadata.ndjson")]
)
def test_what_would_be_joined_over_another_object_is_a_conflict_and_nothing_is_written(
    store: World, format_: str, name: str
) -> None:
    fill(store)
    store.write_object(name, b"something else")
    assert run(store, expect="rejected", format=format_)["reason"] == "conflict"
    assert names(store) == {name}
    assert store.read(name) == b"something else"


def test_each_frame_becomes_an_image_and_what_has_none_is_skipped(store: World) -> None:
    store.put(instance("1.1", "1.1.1", "1.1.1.1"), instance("1.1", "1.1.1", "1.1.1.2", frames=3))
    store.put(instance("1.1", "1.1.2", "1.1.2.1", rows=False))
    record = run(store, format="jpeg")
    assert record["counts"] == {
        "objects": 4,
        "written": 4,
        "failures": 0,
        "skipped": 1,
    }
    folder = "out/1.1/1.1.1"
    assert names(store) == {
        f"{folder}/1.1.1.1.jpg",
        *(f"{folder}/1.1.1.2/{n}.jpg" for n in (1, 2, 3)),
    }
    assert all(store.read(name)[:2] == b"\xff\xd8" for name in names(store))
    assert manifest(store)["skipped"] == [
        {
            "study": "1.1",
            "series": "1.1.2",
            "instance": "1.1.2.1",
            "reason": "unsupported_input",
        }
    ]
    record = run(store, format="png", destination=f"{TO}/png")
    assert record["counts"]["objects"] == 4
    assert store.read("out/png/1.1/1.1.1/1.1.1.2/3.png")[:4] == b"\x89PNG"


def test_an_instance_of_many_frames_is_cut(small_slices: World) -> None:
    store = small_slices
    store.put(instance("1.1", "1.1.1", "1.1.1.1", frames=11))
    assert run(store, format="png")["counts"]["objects"] == 11
    assert names(store) == {f"out/1.1/1.1.1/1.1.1.1/{n}.png" for n in range(1, 12)}


def test_a_slice_of_frames_lists_the_folders_of_its_instances_only(tmp_path: Path) -> None:
    with (
        strict_buckets(BUCKET, STATE) as server,
        world("export_resource", tmp_path, buckets_url=server.url) as store,
    ):
        for n in range(1000):
            server.put(BUCKET, f"out/1.1/1.1.1/1.1.1.9/{n}.png", b"")
        store.put(instance("1.1", "1.1.1", "1.1.1.1", frames=3))
        store.put(instance("1.1", "1.1.1", "1.1.1.2", frames=2))
        assert run(store, format="png")["counts"]["written"] == 5
        assert run(store, format="png", request_id="r2")["counts"]["written"] == 0
        assert server.listed < 1000


@pytest.mark.parametrize("fixture", ["store", "small_slices"])
def test_metadata_is_an_object_for_each_instance_and_one_file_of_all(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    store: World = request.getfixturevalue(fixture)
    fill(store, series=4, instances=3)
    record = run(store, format="metadata")
    assert record["counts"]["objects"] == 12
    one = json.loads(store.read("out/1.1/1.1.1/1.1.1.1.json"))
    assert one["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    lines = [json.loads(line) for line in store.read("out/metadata.ndjson").splitlines()]
    instances = [f"1.1.{series}.{n}" for series in range(1, 5) for n in range(1, 4)]
    assert sorted(line["instance"] for line in lines) == instances
    for line in lines:
        assert line["metadata"]["00080018"]["Value"] == [line["instance"]]
    assert manifest(store)["joined"]["name"] == "out/metadata.ndjson"
    store.delete_object("out/1.1/1.1.1/1.1.1.1.json")
    assert run(store, format="metadata")["counts"]["written"] == 1
    assert len(store.read("out/metadata.ndjson").splitlines()) == 12


def test_metadata_that_cannot_be_encoded_again_is_exported_as_it_is(store: World) -> None:
    fill(store, series=1, instances=1)
    (row,) = store.found("studies/1.1/metadata")
    text = json.dumps([row], indent=1).replace('"Doe^Jane"', '"Doe\\ud800"')
    text = text.replace('"Value"', '"factor": 1e999, "Value"', 1).replace("\n", "\r\n")
    store.fault(kind="status", status=200, body=text, path="/metadata$")
    run(store, format="metadata")
    (line,) = store.read("out/metadata.ndjson").splitlines()
    assert b"1e999" in line
    metadata = json.loads(line)["metadata"]
    assert metadata["00100010"]["Value"] == [{"Alphabetic": "Doe\ud800"}]
    assert metadata == json.loads(store.read("out/1.1/1.1.1/1.1.1.1.json"))


def test_metadata_of_an_earlier_export_does_not_stay_when_all_instances_fail(store: World) -> None:
    fill(store)
    run(store, format="metadata")
    for name in store.objects("out/1.1/"):
        store.write_object(name, b"something else")
    record = run(store, expect="rejected", format="metadata", request_id="r2")
    assert record["reason"] == "conflict"
    assert record["counts"]["failures"] == 6
    assert store.read("out/metadata.ndjson") == b""
    assert manifest(store)["joined"]["name"] == "out/metadata.ndjson"


def test_bulk_data_is_an_object_for_each_attribute(store: World) -> None:
    store.put(instance("1.1", "1.1.1", "1.1.1.1", pixels=64))
    record = run(store, format="bulkdata")
    assert record["counts"]["objects"] == 1
    (name,) = names(store)
    assert name == "out/1.1/1.1.1/1.1.1.1/7FE00010.bin"
    assert len(store.read(name)) == 64 * 64
    (entry,) = manifest(store)["objects"]
    assert entry["tag"] == "7FE00010"
    assert run(store, format="bulkdata")["counts"]["written"] == 0


def test_bulk_data_of_an_unknown_address_is_a_failure(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_BULKDATA_PATH", re.compile("/bulkdata/(0042[0-9]{4})"))
    store.put(instance("1.1", "1.1.1", "1.1.1.1", pixels=64))
    assert run(store, expect="rejected", format="bulkdata")["counts"]["failures"] == 1
    (failure,) = manifest(store)["failures"]
    assert failure["detail"] == "a BulkDataURI of an unknown form"


def test_bulk_data_is_not_written_if_the_instance_has_some_of_an_unknown_address(
    store: World,
) -> None:
    store.put(instance("1.1", "1.1.1", "1.1.1.1", pixels=64))
    (row,) = store.found("studies/1.1/metadata")
    row["00091010"] = {"vr": "OB", "BulkDataURI": "elsewhere/1"}
    store.fault(kind="status", status=200, body=json.dumps([row]), path="/metadata$")
    record = run(store, expect="rejected", format="bulkdata")
    assert record["counts"]["failures"] == 1
    assert not names(store)


@pytest.mark.parametrize("fixture", ["store", "small_slices"])
def test_a_zip_has_every_instance_and_is_made_once(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    store: World = request.getfixturevalue(fixture)
    stored = fill(store, series=4, instances=3)
    large = instance("1.1", "1.1.9", "1.1.9.1", pixels=2048)
    store.put(large)
    record = run(store, format="zip")
    assert record["counts"]["objects"] == 13
    assert names(store) == {"out/1.1.zip"}
    with zipfile.ZipFile(io.BytesIO(store.read("out/1.1.zip"))) as archive:
        assert archive.testzip() is None
        members = {f"out/{name}": archive.read(name) for name in archive.namelist()}
    assert members == {**stored, "out/1.1/1.1.9/1.1.9.1.dcm": large}
    assert len(manifest(store)["objects"]) == 13
    generation = store.objects()["out/1.1.zip"]["generation"]
    assert run(store, format="zip")["counts"]["written"] == 0
    assert store.objects()["out/1.1.zip"]["generation"] == generation


@pytest.mark.parametrize("request_id", ["r1", "r2"])
def test_an_earlier_zip_is_not_used_for_the_present_contents(store: World, request_id: str) -> None:
    fill(store)
    run(store, format="zip")
    stored = fill(store, series=3)
    assert run(store, format="zip", request_id=request_id)["counts"]["objects"] == 9
    with zipfile.ZipFile(io.BytesIO(store.read("out/1.1.zip"))) as archive:
        assert {f"out/{name}" for name in archive.namelist()} == set(stored)
    assert len(manifest(store)["objects"]) == 9


def test_a_transfer_syntax(store: World) -> None:
    fill(store, series=1, instances=2)
    run(store, transfer_syntax="1.2.840.10008.1.2.1")
    assert len(names(store)) == 2
    record = run(store, expect="rejected", transfer_syntax="*")
    assert record["reason"] == "conflict"  # what is there under these names is not "as stored"


def test_a_large_instance_goes_in_chunks(store: World) -> None:
    data = instance("1.1", "1.1.1", "1.1.1.1", pixels=6144)
    store.put(data, instance("1.1", "1.1.1", "1.1.1.2"))
    run(store)
    assert store.read("out/1.1/1.1.1/1.1.1.1.dcm") == data
    assert len(names(store)) == 2
