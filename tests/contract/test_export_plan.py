"""Plans from a real DICOM store: every instance once, with any page size, in slices of bounded
size."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from functions.api.commands import Query
from functions.api.formats import FORMATS
from functions.api.requests import ExportRequest
from functions.common.clients import dicomweb
from functions.common.errors import RetryableError
from functions.common.resources import GcsPrefix, Resource
from functions.export import plan as export_plan
from functions.export.job import Attempt
from functions.export.plan import Planner
from functions.export.slices import Slice
from tests.contract.exporting import job_of
from tests.contract.world import World, instance, world


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world("export_resource", tmp_path_factory.mktemp("store")) as made:
        for series, count in (("1.1.1", 10), ("1.1.2", 3), ("1.1.3", 1), ("1.1.4", 1)):
            made.put(*(instance("1.1", series, f"{series}.{n}") for n in range(count)))
        made.put(
            instance("1.2", "1.2.1", "1.2.1.1", frames=9),
            instance("1.2", "1.2.1", "1.2.1.2", rows=False),
        )
        yield made


@pytest.fixture(autouse=True)
def faultless(store: World) -> Iterator[None]:
    yield
    store.clear_faults()


def plan(
    store: World,
    path: str,
    size: int,
    format_: str = "dicom",
    query: str = "",
    attempt: int = 1,
) -> list[Slice]:
    resource = None if query else Resource.parse(path)
    asked = Query.parse(query) if query else None
    request = ExportRequest("r1", resource, asked, GcsPrefix("bucket"), FORMATS[format_])
    job = replace(job_of(store, request), attempt=Attempt(attempt, 5))
    planner = Planner(job, size)
    slices = [part for target in planner.targets(None) for part in planner.slices(target)]
    return [*slices, *planner.rest()]


def instances(slices: list[Slice]) -> list[str]:
    return [item.resource.instance for part in slices for item in part.items]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 15, 100])
@pytest.mark.parametrize("page", [1, 3, 4, 15, 1000])
def test_every_instance_is_in_one_slice(
    store: World, monkeypatch: pytest.MonkeyPatch, size: int, page: int
) -> None:
    monkeypatch.setattr(export_plan, "PAGE", page)
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", page)
    slices = plan(store, "studies/1.1", size)
    found = instances(slices)
    assert len(found) == len(set(found)) == 15
    for part in slices:
        assert part.weight <= 5 * size
        covered = {item.resource for item in part.items}
        for stream in part.streams:
            others = {one.resource for other in slices if other is not part for one in other.items}
            assert any(str(one).startswith(str(stream) + "/") for one in covered)
            assert not any(str(one).startswith(str(stream) + "/") for one in others)


def test_a_small_study_is_one_stream(store: World) -> None:
    (part,) = plan(store, "studies/1.1", 1000)
    assert part.streams == [Resource("1.1")]


def test_a_series_much_larger_than_a_slice_is_cut_and_not_streamed(store: World) -> None:
    slices = plan(store, "studies/1.1/series/1.1.1", 1)
    assert len(slices) == 10
    assert not any(part.streams for part in slices)


def test_each_frame_counts_towards_the_size_of_a_slice(store: World) -> None:
    slices = plan(store, "studies/1.2", 4, "png")
    assert [(i.first, i.last) for part in slices for i in part.items] == [(1, 4), (5, 8), (9, 9)]
    assert [one.instance for part in slices for one in part.skipped] == ["1.2.1.2"]


def test_an_instance_that_claims_too_many_frames_is_a_failure(store: World) -> None:
    row = {
        "00080018": {"vr": "UI", "Value": ["1.2.1.1"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.1"]},
        "00280008": {"vr": "IS", "Value": [10**12]},
        "00280010": {"vr": "US", "Value": [8]},
    }
    for page in ([row], []):
        body = json.dumps(page)
        store.fault(kind="status", status=200, body=body, path="instances", count=1)
    (part,) = plan(store, "studies/1.2", 1000, "png")
    assert [failure["detail"] for failure in part.failures] == ["more than 1000000 frames"]
    assert not part.items


def test_a_listing_whose_pages_overlap_is_made_again(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", 5)
    uids = "includefield=0020000D&includefield=0020000E"
    first_page = json.dumps(store.found(f"studies/1.1/instances?limit=5&{uids}"))
    second_page = "studies/1.1/instances.*offset=5$"
    store.fault(
        kind="status",
        status=200,
        body=first_page,
        path=second_page,
        count=1,
    )
    assert len(instances(plan(store, "studies/1.1", 1000))) == 15


@pytest.mark.parametrize(
    ("query", "level", "place"),
    [("PatientName=Doe^Jane", "studies", "studies"), ("series?Modality=OT", "series", "series")],
)
def test_a_query_whose_pages_overlap_misses_no_match(
    store: World, monkeypatch: pytest.MonkeyPatch, query: str, level: str, place: str
) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", 1)
    uids = "includefield=0020000D&includefield=0020000E"
    first_page = json.dumps(store.found(f"{level}?limit=1&{uids}"))
    second_page = f"dicomWeb/{place}\\?.*offset=1$"
    store.fault(kind="status", status=200, body=first_page, path=second_page, count=1)
    assert len(instances(plan(store, "", 1000, query=query))) == 17


def test_a_query_whose_pages_always_overlap_is_planned_by_a_later_delivery(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", 1)
    uids = "includefield=0020000D&includefield=0020000E"
    first_page = json.dumps(store.found(f"studies?limit=1&{uids}"))
    second_page = "dicomWeb/studies\\?.*offset=1$"
    store.fault(kind="status", status=200, body=first_page, path=second_page)
    with pytest.raises(RetryableError, match="unavailable"):
        plan(store, "", 1000, query="PatientName=Doe^Jane")


def test_a_large_study_whose_pages_of_series_overlap_is_listed_again(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_plan, "PAGE", 3)
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", 2)
    first_page = json.dumps(store.found("studies/1.1/series?limit=2&includefield=0020000D"))
    second_page = "studies/1.1/series\\?.*offset=2$"
    store.fault(kind="status", status=200, body=first_page, path=second_page, count=1)
    assert len(instances(plan(store, "studies/1.1", 1000))) == 15


def test_a_series_that_is_given_up_is_not_retrieved(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_plan, "PAGE", 3)
    store.fault(kind="status", status=200, body="[]", path="series/1.1.2/instances")
    slices = plan(store, "studies/1.1", 1000, attempt=5)
    assert Resource("1.1", "1.1.2") not in [one for part in slices for one in part.streams]
    assert [failure["series"] for part in slices for failure in part.failures] == ["1.1.2"]


def test_metrics_that_lag_hide_no_instance(store: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_plan, "PAGE", 3)
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", 3)
    store.fault(kind="lag")
    assert len(instances(plan(store, "studies/1.1", 1000))) == 15


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("PatientName=Doe^Jane", 17),
        ("series?Modality=OT&StudyInstanceUID=1.1", 15),
        ("instances?SOPInstanceUID=1.1.2.1", 1),
        ("PatientID=none", 0),
    ],
)
@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_query_plans_each_match_once_whatever_the_size_of_a_page(
    store: World, monkeypatch: pytest.MonkeyPatch, query: str, count: int, page: int
) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", page)
    assert len(set(instances(plan(store, "", 4, query=query)))) == count
