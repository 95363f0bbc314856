"""Answers that combine several of the store's: each row once, page by page, with an end."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.search.kit import Answer, FakeStore, Function, Received, Reply, row


def stored(one: Callable[[str, int], object], count: int) -> Callable[[Received], Answer]:
    """A store with `count` rows for each modality, each made by `one` of the modality and its
    place."""

    def plan(request: Received) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        offset = int(query.get("offset", "0"))
        end = min(offset + int(query["limit"]), count)
        modality = query["Modality"]
        return found([one(modality, place) for place in range(offset, end)])

    return plan


def found(rows: list[Any]) -> Answer:
    """An answer with these rows."""
    return Answer(body=json.dumps(rows).encode())


def values(reply: Reply, tag: str) -> list[str]:
    """The first value of an attribute in each row."""
    return [one[tag]["Value"][0] for one in reply.json()]


def followed(search: Function, target: str) -> Iterator[Reply]:
    """This page and those that the links lead to; more than a hundred are no way to an end."""
    for _ in range(100):
        reply = search.send(target)
        assert reply.status == 200
        yield reply
        if "link" not in reply.headers:
            return
        target = reply.headers["link"][1:].partition(">")[0].removeprefix(search.url)
    raise AssertionError("the links do not end")


def test_studies_of_a_modality_are_put_together_from_series(
    search: Function, store: FakeStore
) -> None:
    series = [
        row(t0020000D=f"1.{number // 3}", t0020000E=f"2.{number}", t00080060="CT")
        for number in range(30)
    ]
    received = store.answers(found(series))
    reply = search.send("/studies?ModalitiesInStudy=CT&limit=4&offset=2")
    assert values(reply, "0020000D") == ["1.2", "1.3", "1.4", "1.5"]
    of_series = {"0020000E", "00080060"}
    assert not any(of_series & set(one) for one in reply.json())
    assert "offset=6" in reply.headers["link"]
    assert received[0].path == "series"
    last = search.send("/studies?ModalitiesInStudy=CT&limit=4&offset=8")
    assert len(last.json()) == 2
    assert "link" not in last.headers


def test_pages_of_series_are_read_until_there_are_enough_studies(
    search: Function, store: FakeStore
) -> None:
    def plan(request: Received) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        offset = int(query.get("offset", "0"))
        end = min(offset + int(query["limit"]), 500)
        numbers = range(offset, end)
        return found([row(t0020000D=f"1.{number // 50}") for number in numbers])

    store.answers(Answer())
    store.plan = plan
    reply = search.send("/studies?Modality=CT&limit=20")
    assert len(reply.json()) == 10
    assert "link" not in reply.headers
    assert len(store.received) > 1


def test_several_studies_by_uid_are_found_once_each(search: Function, store: FakeStore) -> None:
    first = row(t0020000D="1.2.0")
    second = row(t0020000D="1.2.1")
    store.answers(found([first]), found([first, second]), found([]))
    reply = search.send("/studies?StudyInstanceUID=1.2.0,1.2.1,1.2.9")
    assert values(reply, "0020000D") == ["1.2.0", "1.2.1"]


# One instance UID in two series of one study.
TWICE = [row(t0020000D="1.2", t0020000E=uid, t00080018="1.9") for uid in ("1.0", "1.1")]


def test_one_uid_in_two_series_is_two_instances(search: Function, store: FakeStore) -> None:
    store.answers(found(TWICE), found(TWICE[:1]))
    reply = search.send("/instances?Modality=CT,MR")
    assert values(reply, "0020000E") == ["1.0", "1.1"]


@pytest.mark.parametrize(("level", "count"), [("series", 2), ("studies", 1)])
def test_one_uid_in_two_series_is_two_series_and_one_study(
    search: Function, store: FakeStore, level: str, count: int
) -> None:
    store.answers(found(TWICE), Answer(204, b""))
    assert len(search.send(f"/{level}?Modality=CT,MR").json()) == count


def test_a_row_without_its_uid_is_no_bug(search: Function, store: FakeStore) -> None:
    empty = {"vr": "UI", "Value": []}
    store.answers(found([{"0020000D": empty, "00080018": empty}]))
    assert len(search.send("/instances?Modality=CT,MR").json()) == 1


def test_large_rows_make_short_pages_that_lead_to_all_of_them(
    search: Function, store: FakeStore
) -> None:
    def large(modality: str, place: int) -> object:
        return row(t00080018=f"{modality}.{place}", t00204000="x" * 30_000)

    store.answers(Answer())
    store.plan = stored(large, 300)
    pages = list(followed(search, "/instances?Modality=CT,MR&limit=1000&includefield=all"))
    assert len(pages) > 1
    for reply in pages[:-1]:
        assert reply.headers["warning"].endswith('ask for the next page"')
    assert max(len(reply.body) for reply in pages) < 4 * 1024 * 1024
    got = [uid for reply in pages for uid in values(reply, "00080018")]
    places = itertools.product(("CT", "MR"), range(300))
    assert got == [f"{modality}.{place}" for modality, place in places]


def test_links_end_where_no_more_series_are_read(search: Function, store: FakeStore) -> None:
    store.answers(Answer())
    store.plan = stored(lambda _, place: row(t0020000D=f"1.{place // 4}"), 60_000)
    first, *others = followed(search, "/studies?Modality=CT&limit=1000&offset=11000")
    assert len(first.json()) == 1000
    assert sum(len(reply.json()) for reply in others) == 500
    assert others[-1].headers["warning"] == (
        '299 dicom-functions "only 50000 rows of the DICOM store were looked at: narrow the search"'
    )


def test_several_searches_that_were_read_to_their_ends_say_nothing(
    search: Function, store: FakeStore
) -> None:
    store.answers(Answer())
    store.plan = stored(lambda kind, place: row(t00080018=f"{kind}.{place}"), 26_000)
    reply = search.send("/instances?Modality=CT,MR&limit=50000&offset=10000")
    assert len(reply.json()) == 42_000
    assert "warning" not in reply.headers
