"""The meaning of raw paths, and refused paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.search.refusals import RefusedError
from functions.search.targets import parse, raw_target

GOOD = {
    "/studies": ("search", "studies"),
    "/studies/": ("search", "studies"),
    "/series": ("search", "series"),
    "/instances": ("search", "instances"),
    "/studies/1.2/series": ("search", "studies/1.2/series"),
    "/studies/1.2/instances": ("search", "studies/1.2/instances"),
    "/studies/1.2/series/1.3/instances": ("search", "studies/1.2/series/1.3/instances"),
    "/studies/_query": ("query", "studies"),
    "/studies/1.2/series/1.3/instances/_query": ("query", "studies/1.2/series/1.3/instances"),
    "/studies/1.2": ("retrieve", "studies/1.2"),
    "/studies/1.2/metadata": ("retrieve", "studies/1.2/metadata"),
    "/studies/1.2/series/1.3/metadata": ("retrieve", "studies/1.2/series/1.3/metadata"),
    "/studies/1.2/series/1.3/instances/1.4/rendered": (
        "retrieve",
        "studies/1.2/series/1.3/instances/1.4/rendered",
    ),
    "/studies/1.2/series/1.3/instances/1.4/frames/1%2C2": (
        "retrieve",
        "studies/1.2/series/1.3/instances/1.4/frames/1,2",
    ),
    "/studies/1.2/series/1.3/instances/1.4/frames/3/rendered": (
        "retrieve",
        "studies/1.2/series/1.3/instances/1.4/frames/3/rendered",
    ),
    "/studies/1.2/series/1.3/instances/1.4/bulkdata/00400555/0/7FE00010": (
        "retrieve",
        "studies/1.2/series/1.3/instances/1.4/bulkdata/00400555/0/7FE00010",
    ),
    "/exports": ("exports", ""),
    "/": ("asset", ""),
}


@pytest.mark.parametrize("path", GOOD)
def test_a_path_of_the_grammar_is_understood(path: str) -> None:
    target = parse(path)
    assert (target.kind, target.path) == GOOD[path]


@pytest.mark.parametrize(
    "path",
    [
        "//studies",
        "/studies//1.2",
        "/studies/..",
        "/studies/../projects",
        "/studies/.",
        "/studies/1.2%2Fseries",
        "/studies/1.2%2fmetadata",
        "/studies%2F..%2F..%2Fprojects",
        "/studies/%2e%2e/x",
        "/studies/1.2%0d%0aX-Injected:%201",
        "/studies/1.2%00",
        "/studies/1.2\\..\\x",
        "/studies/1.2 3",
        "http://elsewhere.example/studies",
        "studies",
        "",
        "*",
        "/studies/ü",
        "/" + "a" * 2000,
        "/studies/1.2/series/1.3/instances/1.4/frames/0",
        "/studies/1.2/series/1.3/instances/1.4/frames/1,,2",
        "/studies/1.2/series/1.3/instances/1.4/frames/" + ",".join(["1"] * 400),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_malformed(path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(path)
    assert caught.value.reason == "invalid_path"
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/studies/abc",
        "/studies/1..2",
        "/studies/.1",
        "/studies/1.2/series/x/metadata",
        "/studies/" + "1" * 65,
    ],
)
def test_a_malformed_uid_is_named(path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(path)
    assert caught.value.reason == "invalid_uid"
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/projects",
        "/studies/1.2/instances/1.4",
        "/series/1.3/instances",
        "/instances/1.4/metadata",
        "/studies/1.2/rendered",
        "/studies/1.2/frames/1",
        "/studies/1.2/series/1.3/instances/1.4/bulkdata",
        "/studies/1.2/series/1.3/instances/1.4/thumbnail",
        "/studies/1.2:getStudyMetrics",
        "/studies/1.2/_query",
        "/_query",
    ],
)
def test_a_path_that_means_nothing_is_not_found(path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(path)
    assert caught.value.status == (400 if ":" in path else 404)


def test_the_target_is_read_as_it_was_sent() -> None:
    assert raw_target({"RAW_URI": "/studies/1%2F2?PatientID=1?2", "PATH_INFO": "/studies/1/2"}) == (
        "/studies/1%2F2",
        "PatientID=1?2",
    )
    with pytest.raises(RefusedError) as caught:
        raw_target({"RAW_URI": "/studies?x=" + "a" * 9000})
    assert caught.value.status == 400


@given(st.text(alphabet="/studieserinac.0123%2F:@\\_-", max_size=60))
def test_whatever_gets_through_stays_below_dicomweb(path: str) -> None:
    try:
        target = parse("/" + path)
    except RefusedError:
        return
    assert ".." not in target.path.split("/")
    assert not set(target.path) & set("%\\@?#: \r\n")
    assert "//" not in target.path
