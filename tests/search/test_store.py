"""The function before the local DICOM store: what viewers and people do."""

import email
import json
from collections.abc import Iterator

import pytest
import requests

from tests.search.kit import Function, function, real_store, study

INSTANCE = "studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function before a store with three studies."""
    folder = tmp_path_factory.mktemp("store")
    files = [
        *study(1),
        *study(2, "MR", PatientName="Müller^Jörg", StudyDate="20250101"),
        *study(
            3,
            "CT",
            series=1,
            instances=1,
            PatientName="Doering^Ann",
            PatientID="P1",
        ),
    ]
    with real_store(folder / "store", files) as endpoint, function(endpoint, folder) as running:
        yield running


def uids(full: Function, path: str, tag: str = "0020000D") -> list[str]:
    return sorted(row[tag]["Value"][0] for row in full.send(f"/{path}").json())


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["1.2.1", "1.2.2", "1.2.3"]),
        ("PatientID=P1", ["1.2.1", "1.2.3"]),
        ("00100020=P2", ["1.2.2"]),
        ("PatientName=Doe%5EJane", ["1.2.1"]),
        ("PatientName=Do*", ["1.2.1", "1.2.3"]),
        ("PatientName=J%C3%B6*", ["1.2.2"]),
        ("PatientName=m%C3%BCller&fuzzymatching=true", ["1.2.2"]),
        ("PatientName=", ["1.2.1", "1.2.2", "1.2.3"]),
        ("PatientName=*", ["1.2.1", "1.2.2", "1.2.3"]),
        ("StudyDate=20240101-20241231", ["1.2.1", "1.2.3"]),
        ("StudyDate=20250101-", ["1.2.2"]),
        ("ModalitiesInStudy=MR", ["1.2.2"]),
        ("Modality=CT&PatientName=Doer*", ["1.2.3"]),
        ("ModalitiesInStudy=CT,MR", ["1.2.1", "1.2.2", "1.2.3"]),
        ("StudyInstanceUID=1.2.1%5C1.2.3", ["1.2.1", "1.2.3"]),
        ("AccessionNumber=A3", ["1.2.3"]),
        ("PatientID=nobody", []),
    ],
)
def test_studies_are_found(full: Function, query: str, found: list[str]) -> None:
    assert uids(full, f"studies?{query}") == found


def test_a_viewers_search_is_answered(full: Function) -> None:
    """As OHIF asks (its study list), with attributes that the store does not know."""
    fields = "00081030,00080060,00080061,00201206,00201208"
    reply = full.send(
        f"/studies?limit=101&offset=0&fuzzymatching=true&includefield={fields}&PatientName=Doe"
    )
    assert reply.status == 200
    assert reply.json()[0]["00081030"]["Value"] == ["Chest"]
    assert "ModalitiesInStudy" in reply.headers["warning"]


def test_pages_follow_each_other_without_gaps(full: Function) -> None:
    seen: list[str] = []
    target = "/instances?limit=4&PatientID=P1"
    while target:
        reply = full.send(target)
        seen += [row["00080018"]["Value"][0] for row in reply.json()]
        link = reply.headers.get("link", "")
        target = link[1:].partition(">")[0].removeprefix(full.url)
    assert len(seen) == len(set(seen)) == 7


def test_pages_of_a_query_by_post_follow_each_other(full: Function) -> None:
    seen: list[str] = []
    target = "/instances/_query?limit=3"
    while target:
        headers = {"Content-Type": "application/json"}
        reply = full.send(target, "POST", headers, json.dumps({"PatientName": "Doe*"}).encode())
        seen += [row["00080018"]["Value"][0] for row in reply.json()]
        assert "Doe" not in reply.headers.get("link", "")
        target = reply.headers.get("link", "")[1:].partition(">")[0].removeprefix(full.url)
    assert len(seen) == len(set(seen)) == 7


def test_an_instance_comes_back_as_it_was_stored(full: Function) -> None:
    assert (
        full.send(f"/{INSTANCE}", headers={"Accept": "application/dicom; transfer-syntax=*"}).body
        == study(1)[0]
    )
    answer = requests.get(f"{full.url}/studies/1.2.1", timeout=30)
    message = email.message_from_bytes(
        f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.content
    )
    assert len(list(message.walk())) == 1 + 6


def test_metadata_leads_back_to_the_function_for_its_bulk_data(full: Function) -> None:
    metadata = full.send(f"/{INSTANCE}/metadata").json()
    uri = metadata[0]["7FE00010"]["BulkDataURI"]
    assert uri == f"{full.url}/{INSTANCE}/bulkdata/7FE00010"
    assert len(full.send(uri.removeprefix(full.url)).body) == 64 * 64


def test_pictures_and_frames_are_drawn(full: Function) -> None:
    jpeg = full.send(f"/{INSTANCE}/rendered", headers={"Accept": "text/html,image/webp,*/*;q=0.8"})
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert jpeg.body[:2] == b"\xff\xd8"
    png = full.send(f"/{INSTANCE}/frames/1/rendered?accept=image/png&viewport=32,32")
    assert png.headers["content-type"] == "image/png"
    assert png.body[1:4] == b"PNG"
    frames = full.send(f"/{INSTANCE}/frames/1")
    assert frames.headers["content-type"].startswith("multipart/related")
    assert len(frames.body) > 64 * 64
    assert full.send(f"/{INSTANCE}/frames/9").status in (400, 404)


def test_what_is_not_there_is_404(full: Function) -> None:
    for path in (
        "/studies/1.9",
        "/studies/1.9/metadata",
        f"/{INSTANCE}.9/rendered",
        f"/{INSTANCE}/bulkdata/00104000",
    ):
        assert full.send(path).reason == "not_found"
    assert full.send("/studies/1.9/series").json() == []


def test_retrieving_can_be_switched_off(
    full: Function, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("off")
    with (
        real_store(folder / "store", study(1, series=1, instances=1)) as endpoint,
        function(endpoint, folder, SEARCH_RETRIEVE="false", SEARCH_PAGE="false") as off,
    ):
        assert uids(off, "studies") == ["1.2.1"]
        for path in (f"/{INSTANCE}", f"/{INSTANCE}/metadata", f"/{INSTANCE}/rendered"):
            assert off.send(path).status == 403
            assert off.send(path).reason == "retrieve_disabled"
        assert off.send("/").status == 404
        assert off.send("/config.json").json() == {
            "retrieve": False,
            "exports": None,
            "uploads": None,
            "viewer": "",
        }
        assert (
            off.send("/exports", "POST", {"Content-Type": "application/json"}, b"{}").status == 404
        )
