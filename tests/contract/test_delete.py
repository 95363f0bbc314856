"""Deletes against a real DICOM store: what is deleted, what stays, and operations that fail."""

import base64
import contextlib
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.common.clients import transport
from functions.common.deadline import utc_now
from functions.common.errors import PermanentError
from functions.common.events.messages import FIRST_PUBLISHED
from functions.common.events.runtime import Services
from functions.common.settings import Settings
from functions.delete.followup import Work
from functions.delete.handler import handle
from infra.local.dicomstore.choices import Options
from tests.contract.world import STORE_NAME, World, instance, world


@pytest.fixture
def store(tmp_path: Path) -> Iterator[World]:
    with world("delete_resource", tmp_path) as made:
        yield made


def show_deleted(store: World, skip: int, count: int) -> None:
    """After `skip` searches, `count` of them still find an instance."""
    answer = json.dumps([{"00080018": {"vr": "UI", "Value": ["1.1.1.1"]}}])
    store.fault(
        kind="status",
        status=200,
        body=answer,
        path="instances",
        skip=skip,
        count=count,
    )


def fill(store: World, studies: int = 1, series: int = 2, instances: int = 2) -> None:
    for s in range(1, studies + 1):
        for e in range(1, series + 1):
            store.put(
                *(
                    instance(f"1.{s}", f"1.{s}.{e}", f"1.{s}.{e}.{n}")
                    for n in range(1, instances + 1)
                )
            )


def words(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(record["outcome"], record.get("reason", "")) for record in records]


@pytest.mark.parametrize(
    ("path", "left", "gone"),
    [
        ("studies/1.1", 0, 4),
        ("/studies/1.1/series/1.1.2", 2, 2),
        ("studies/1.1/series/1.1.2/instances/1.1.2.1", 3, 1),
        (f"{STORE_NAME}/dicomWeb/studies/1.1/series/1.1.2", 2, 2),
    ],
)
def test_a_study_a_series_or_an_instance_goes_and_nothing_else(
    store: World, path: str, left: int, gone: int
) -> None:
    fill(store)
    (record,) = store.run(handle, {"path": path, "request_id": "r1"})
    assert record["outcome"] == "deleted"
    assert record["counts"] == {"instances": gone}
    assert record["request_id"] == "r1"
    assert record["bytes"] > 0
    assert record["study"] == "1.1"
    assert len(store.found("instances")) == left
    assert store.requests("DELETE", "delete") == 1


def test_a_target_that_is_not_there_is_success(store: World) -> None:
    for path in ("studies/9", "studies/9/series/9", "studies/9/series/9/instances/9"):
        assert words(store.run(handle, {"path": path})) == [("deleted", "not_found")]
    assert store.requests("DELETE", "delete") == 0


def test_attributes_alone_make_a_command(store: World) -> None:
    fill(store)
    assert (
        store.deliver(
            handle,
            b"",
            {
                "path": "studies/1.1",
                "dry_run": "true",
                "request_id": "r1",
            },
        )
        == ""
    )
    assert words(store.outcomes) == [("dry_run", "")]


def test_a_dry_run_counts_and_deletes_nothing(store: World) -> None:
    fill(store, studies=2)
    (study,) = store.run(handle, {"path": "studies/1.1", "dry_run": True})
    (series,) = store.run(handle, {"path": "studies/1.1/series/1.1.1", "dry_run": True})
    (one,) = store.run(
        handle, {"path": "studies/1.1/series/1.1.1/instances/1.1.1.1", "dry_run": True}
    )
    (query,) = store.run(
        handle, {"query": "PatientName=Doe^Jane", "max_studies": 5, "dry_run": True}
    )
    assert study["counts"] == {"studies": 1, "series": 2, "instances": 4}
    assert series["counts"] == {"studies": 1, "series": 1, "instances": 2}
    assert one["counts"] == {"studies": 1, "series": 1, "instances": 1}
    assert query["counts"] == {"studies": 2, "series": 4, "instances": 8}
    assert study["bytes"] * 2 == query["bytes"]
    assert words(store.run(handle, {"path": "studies/9", "dry_run": True})) == [
        ("dry_run", "not_found")
    ]
    assert len(store.found("instances")) == 8
    assert store.requests("DELETE", "delete") == 0


def test_a_query_deletes_each_study_and_says_so_for_each_and_for_all(store: World) -> None:
    fill(store, studies=12, series=1, instances=1)
    store.put(instance("2.1", "2.1.1", "2.1.1.1", PatientName="Roe^Richard"))
    command = {
        "query": "PatientName=Doe^Jane",
        "max_studies": 12,
        "request_id": "q",
    }
    records = store.run(handle, command)
    *members, summary = records
    studies = [f"studies/1.{number}" for number in range(1, 13)]
    assert sorted(record["member"] for record in members) == sorted(studies)
    assert {record["outcome"] for record in members} == {"deleted"}
    ids = {record["id"] for record in records}
    assert len(ids) == 13
    assert summary["counts"] == {
        "deleted": 12,
        "not_found": 0,
        "failed": 0,
        "instances": 12,
    }
    assert [item["0020000D"]["Value"][0] for item in store.found("studies")] == ["2.1"]
    assert store.requests("DELETE", "delete") == 12


def test_a_query_that_matches_more_than_it_may_deletes_nothing(store: World) -> None:
    fill(store, studies=3)
    (record,) = store.run(handle, {"query": "PatientName=Doe^Jane", "max_studies": 2})
    assert record["outcome"] == "rejected"
    assert record["detail"] == "the query matches more than 2 studies"
    assert len(store.found("instances")) == 12
    assert words(store.run(handle, {"query": "PatientID=none", "max_studies": 2})) == [
        ("deleted", "not_found")
    ]


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"path": "studies"},
        {"path": "studies/1.1/../1.2"},
        {"path": "studies/1.1", "query": "PatientID=1"},
        {"query": "PatientID=1"},
        {"query": "series?PatientID=1", "max_studies": 1},
        {"query": "", "max_studies": 1},
        {"path": "studies/1.1", "max_studies": 1},
        {"path": "studies/1.1", "dryrun": True},
        {"path": "studies/1.1", "request_id": "a b"},
        {"path": "elsewhere/dicomWeb/studies/1.1"},
    ],
)
def test_a_malformed_command_is_refused_and_nothing_happens(
    store: World, command: dict[str, Any]
) -> None:
    fill(store)
    assert words(store.run(handle, command)) == [("rejected", "invalid_command")]
    assert store.requests("DELETE", "delete") == 0


def followed(store: World, message: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    store.forge(message)
    return store.run(handle, **options)


def test_a_follow_up_that_comes_as_a_command_is_refused(store: World) -> None:
    fill(store)
    records = store.run(handle, follow_up(targets=[["studies/1.1", 4, 100, 1, ""]]))
    assert words(records) == [("rejected", "invalid_event")]
    assert records[0]["request_id"] == "q0"  # the message's: no word about the request it names
    assert store.requests("DELETE", "delete") == 0


def test_a_command_that_comes_as_a_follow_up_is_refused(store: World) -> None:
    fill(store)
    records = followed(store, {"path": "studies/1.1", "request_id": "r1"})
    assert words(records) == [("rejected", "invalid_event")]
    assert store.requests("DELETE", "delete") == 0


COUNTS = dict.fromkeys(("deleted", "not_found", "failed", "instances", "bytes"), 0)


def follow_up(**changed: Any) -> dict[str, Any]:
    work = {
        "published": "",
        "store": STORE_NAME,
        "by_query": False,
        "targets": [["studies/1.1", 4, 100, 1, ""]],
        "stored_before": "",
        "late": False,
        "counts": COUNTS,
    }
    return {"continue": {**work, **changed}, "request_id": "r1"}


UNTRIED = [["studies/1.1", 0, 0, 0, ""], ["studies/1.2", 0, 0, 0, ""]]


def instance_uids(store: World) -> list[str]:
    return sorted(item["00080018"]["Value"][0] for item in store.found("instances"))


@pytest.mark.parametrize(
    "changed",
    [
        {"published": "yesterday"},
        {"published": 7},
        {"store": "elsewhere"},
        {"store": STORE_NAME + "2"},
        {"by_query": "perhaps"},
        {"late": "perhaps"},
        {"stored_before": "yesterday"},
        {"stored_before": None},
        {"targets": []},
        {"targets": [["studies/1.1", 4, 100, 1]]},
        {"targets": [["studies/..", 4, 100, 1, ""]]},
        {"targets": [["studies/1.1", -4, 100, 1, ""]]},
        {"targets": [["studies/1.1", 4, 100, 1, "projects/p/locations/l/datasets/d/operations/1"]]},
        {"counts": {}},
        {"more": 1},
    ],
)
def test_a_malformed_follow_up_is_refused(store: World, changed: dict[str, Any]) -> None:
    fill(store)
    (record,) = followed(store, follow_up(**changed))
    assert record["outcome"] == "rejected"
    assert store.requests("DELETE", "delete") == 0


def test_a_follow_up_is_taken_as_it_is_written(store: World) -> None:
    fill(store)
    assert words(followed(store, follow_up())) == [("deleted", "")]


TOO_MANY = "more than 3 instances, which DELETE_MAX_INSTANCES forbids"


def details(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(record["outcome"], record.get("detail", "")) for record in records]


@pytest.fixture
def at_most_3(tmp_path: Path) -> Iterator[World]:
    with world("delete_resource", tmp_path, DELETE_MAX_INSTANCES="3") as made:
        fill(made)
        yield made


def test_a_study_of_more_instances_than_allowed_is_left(at_most_3: World) -> None:
    assert details(at_most_3.run(handle, {"path": "studies/1.1"})) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 4


def test_a_part_of_it_that_is_small_enough_goes(at_most_3: World) -> None:
    command = {"path": "studies/1.1/series/1.1.1"}
    assert words(at_most_3.run(handle, command)) == [("deleted", "")]


def test_studies_of_a_query_count_together(at_most_3: World) -> None:
    at_most_3.remove("studies/1.1/series/1.1.1/instances/1.1.1.1")
    at_most_3.remove("studies/1.1/series/1.1.1/instances/1.1.1.2")
    at_most_3.put(*(instance("1.2", "1.2.1", f"1.2.1.{n}") for n in (1, 2)))
    command = {"query": "PatientName=Doe^Jane", "max_studies": 5}
    assert details(at_most_3.run(handle, command)) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 4


def test_metrics_that_lag_let_no_large_study_through(at_most_3: World) -> None:
    at_most_3.fault(kind="lag")
    assert details(at_most_3.run(handle, {"path": "studies/1.1"})) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 4


def test_a_dry_run_counts_instances_that_the_metrics_lack(store: World) -> None:
    fill(store)
    store.fault(kind="lag")
    (record,) = store.run(handle, {"path": "studies/1.1", "dry_run": True})
    assert record["counts"] == {"studies": 1, "series": 2, "instances": 4}


def test_an_outcome_counts_instances_that_the_metrics_lack(store: World) -> None:
    fill(store)
    store.fault(kind="lag")
    (record,) = store.run(handle, {"path": "studies/1.1"})
    assert record["outcome"] == "deleted"
    assert record["counts"] == {"instances": 4}


@pytest.mark.parametrize("told", [1, 3])
def test_a_follow_up_is_held_to_the_limit_whatever_it_says_of_the_size(
    at_most_3: World, told: int
) -> None:
    message = follow_up(targets=[["studies/1.1", told, 1, 0, ""]])
    assert details(followed(at_most_3, message)) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 4


def test_the_limit_of_a_request_includes_earlier_deletes(at_most_3: World) -> None:
    target = ["studies/1.1/series/1.1.1", 2, 1, 0, ""]
    message = follow_up(targets=[target], counts={**COUNTS, "instances": 2})
    assert details(followed(at_most_3, message)) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 4


def test_the_limit_of_a_request_includes_what_a_failed_delete_deleted(at_most_3: World) -> None:
    at_most_3.fault(method="DELETE", kind="operation", code=7, count=1)
    command = json.dumps({"path": "studies/1.1/series/1.1.1"}).encode()
    assert at_most_3.deliver(handle, command, {}) == ""
    message = json.loads(base64.b64decode(at_most_3.follow_ups.pop()["data"]))
    failing = message["continue"]["targets"][0]
    failing[1] = 4  # two more than the failed operation leaves
    message["continue"]["targets"].append(["studies/1.1/series/1.1.2", 0, 0, 0, ""])
    first, second = followed(at_most_3, message)
    assert first["outcome"] == "partial"
    assert details([second]) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 4


def test_a_study_that_the_limit_refuses_after_a_part_of_it_was_deleted_is_partial(
    at_most_3: World,
) -> None:
    # An earlier try deleted two of six.
    (record,) = followed(at_most_3, follow_up(targets=[["studies/1.1", 6, 100, 1, ""]]))
    assert details([record]) == [("partial", TOO_MANY)]
    assert record["counts"] == {"instances": 2}
    assert len(at_most_3.found("instances")) == 4


TOO_YOUNG = "something in it was stored too recently"
STORED_AGAIN = ("rejected", "stored again after the command was sent")


@pytest.fixture
def at_least_an_hour_old(tmp_path: Path) -> Iterator[World]:
    with world("delete_resource", tmp_path, DELETE_MIN_AGE_HOURS="1") as made:
        fill(made)
        yield made


@pytest.mark.parametrize(
    "command", [{"path": "studies/1.1"}, {"query": "PatientName=Doe^Jane", "max_studies": 5}]
)
def test_what_was_stored_too_recently_is_left(
    at_least_an_hour_old: World, command: dict[str, Any]
) -> None:
    store = at_least_an_hour_old
    assert details(store.run(handle, command)) == [("rejected", TOO_YOUNG)]
    assert len(store.found("instances")) == 4


@pytest.mark.parametrize("published", ["", "2999-01-01T00:00:00Z"])
def test_a_follow_up_is_held_to_the_age(at_least_an_hour_old: World, published: str) -> None:
    message = follow_up(published=published)
    assert details(followed(at_least_an_hour_old, message)) == [("rejected", TOO_YOUNG)]
    assert len(at_least_an_hour_old.found("instances")) == 4


def test_a_follow_up_is_held_to_stored_before(store: World) -> None:
    fill(store)
    message = follow_up(stored_before="2020-01-01T00:00:00Z")
    assert details(followed(store, message)) == [("rejected", TOO_YOUNG)]
    assert len(store.found("instances")) == 4


@pytest.mark.parametrize("message", [{"path": "studies/1.1"}, follow_up()])
def test_a_store_that_is_not_allowed_is_left(tmp_path: Path, message: dict[str, Any]) -> None:
    other = STORE_NAME + "-2"
    with world("delete_resource", tmp_path, DELETE_STORES=other) as store:
        fill(store)
        send = followed if "continue" in message else lambda at, it: at.run(handle, it)
        assert details(send(store, message)) == [
            ("rejected", "this DICOM store is not in DELETE_STORES")
        ]
        assert len(store.found("instances")) == 4


def test_a_path_may_not_name_a_store_that_is_not_allowed(store: World) -> None:
    fill(store)
    command = {"path": f"{STORE_NAME}-2/dicomWeb/studies/1.1"}
    assert words(store.run(handle, command)) == [("rejected", "rejected")]


@pytest.mark.parametrize(
    "changed",
    [
        {"DICOM_STORE": STORE_NAME + "-that-was-deleted"},
        {"HEALTHCARE_ENDPOINT": "without the version"},
    ],
)
def test_a_store_that_is_not_there_does_not_mean_that_its_studies_are_gone(
    store: World, changed: dict[str, str]
) -> None:
    fill(store)
    if "HEALTHCARE_ENDPOINT" in changed:
        changed = {"HEALTHCARE_ENDPOINT": store.store_url}
    settings = Settings.load("delete_resource", {**store.environ, **changed})
    store.services = Services.of(settings)
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, {}) == "unavailable"
    assert not store.outcomes


def test_a_follow_up_that_is_refused_is_not_kept_in_memory() -> None:
    class Text(str):
        """Text that can be referred to weakly."""

    told = Text("no list of targets")
    seen = weakref.ref(told)
    with contextlib.suppress(PermanentError):
        Work.parse({**follow_up()["continue"], "targets": told})
    del told
    assert seen() is None


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '[{"00080018": null}]',
        '[{"00080018": []}]',
        '[{"00080018": {"Value": null}}]',
        '[{"00080018": {"Value": [null]}}]',
        '[{"00080018": {"Value": [{}]}}]',
        '[{"00080018": {"Value": ["no uid"]}}]',
        "[null]",
    ],
)
def test_a_search_with_a_wrong_answer_is_repeated(store: World, body: str) -> None:
    fill(store)
    store.fault(kind="status", status=200, body=body, path="instances")
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, {}) == "unavailable"
    assert not store.outcomes


def test_only_instances_stored_before_a_time_are_deleted(store: World) -> None:
    fill(store)
    (record,) = store.run(handle, {"path": "studies/1.1", "stored_before": "2020-01-01T00:00:00Z"})
    assert record["outcome"] == "rejected"
    assert record["reason"] == "rejected"
    (record,) = store.run(
        handle, {"path": "studies/1.1", "stored_before": "2100-01-01T00:00:00+02:00"}
    )
    assert record["outcome"] == "deleted"


def test_a_late_or_repeated_delivery_does_not_delete_what_was_stored_again_since(
    store: World,
) -> None:
    fill(store)
    for options in ({"attempt": 2}, {"published": "2020-01-01T00:00:00Z"}):
        given = {"published": "2020-01-01T00:00:00Z", **options}
        (record,) = store.run(handle, {"path": "studies/1.1"}, **given)
        assert record["outcome"] == "rejected"
        assert record["detail"] == "stored again after the command was sent"
    assert len(store.found("instances")) == 4
    (record,) = store.run(handle, {"path": "studies/1.1"}, attempt=2)
    assert record["outcome"] == "deleted"


def test_two_limits_of_age_cost_one_request_for_each_instance(store: World) -> None:
    fill(store)
    command = {"path": "studies/1.1", "stored_before": "2100-01-01T00:00:00Z"}
    (record,) = store.run(handle, command, attempt=2)
    assert record["outcome"] == "deleted"
    assert store.requests("GET", "other") == 4 + 1  # and one for the size of the study


def test_a_command_that_is_published_again_does_not_delete_what_was_stored_since(
    store: World,
) -> None:
    first_published = {FIRST_PUBLISHED: utc_now()}
    fill(store)
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, first_published) == ""
    assert details(store.outcomes) == [STORED_AGAIN]
    assert len(store.found("instances")) == 4


def test_the_follow_ups_of_a_repeated_query_do_not_delete_what_was_stored_again_since(
    store: World,
) -> None:
    fill(store)
    given = utc_now()
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 5}).encode()
    assert store.deliver(handle, command, {}, attempt=2, published=given) == ""
    store.put(instance("1.1", "1.1.1", "1.1.1.9"))
    member, summary = store.run(handle)
    assert member["outcome"] == "rejected"
    assert member["detail"] == "stored again after the command was sent"
    assert summary["outcome"] == "rejected"
    assert len(store.found("instances")) == 5


def test_a_repeated_query_leaves_only_the_study_that_was_stored_again_since(
    store: World,
) -> None:
    fill(store, studies=2)
    given = utc_now()
    store.put(instance("1.2", "1.2.1", "1.2.1.9"))
    command = {"query": "PatientName=Doe^Jane", "max_studies": 5}
    *members, summary = store.run(handle, command, attempt=2, published=given)
    assert sorted(details(members)) == [("deleted", ""), STORED_AGAIN]
    assert summary["outcome"] == "partial"
    assert len(store.found("instances")) == 5


def test_a_repeated_query_still_deletes_nothing_if_the_command_forbids_one_study(
    store: World,
) -> None:
    fill(store)
    limit = utc_now()
    store.put(instance("1.2", "1.2.1", "1.2.1.1"))
    given = utc_now()
    store.put(instance("1.1", "1.1.1", "1.1.1.9"))
    command = {"query": "PatientName=Doe^Jane", "max_studies": 5, "stored_before": limit}
    assert details(store.run(handle, command, attempt=2, published=given)) == [
        ("rejected", TOO_YOUNG)
    ]
    assert len(store.found("instances")) == 6


def test_a_study_that_comes_after_a_query_does_not_refuse_what_an_earlier_delivery_planned(
    store: World,
) -> None:
    fill(store, studies=2)
    command = {"query": "PatientName=Doe^Jane", "max_studies": 2, "request_id": "q"}
    data = json.dumps(command).encode()
    given = utc_now()
    assert store.deliver(handle, data, {}, published=given) == ""
    store.put(instance("1.7", "1.7.1", "1.7.1.1"))
    # The first delivery was killed before its message was acknowledged.
    assert store.deliver(handle, data, {}, attempt=2, published=given) == ""
    assert not store.outcomes
    assert {record["outcome"] for record in store.run(handle)} == {"deleted"}
    assert instance_uids(store) == ["1.7.1.1"]


def test_a_replayed_query_whose_age_is_unknown_refuses_each_study(store: World) -> None:
    fill(store, studies=2)
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 5}).encode()
    assert store.deliver(handle, command, {FIRST_PUBLISHED: "unknown"}) == ""
    *members, summary = store.run(handle)
    assert details(members) == [STORED_AGAIN, STORED_AGAIN]
    assert words([summary]) == [("rejected", "operation_failed")]
    assert len(store.found("instances")) == 8


def test_a_repeated_query_refuses_each_study_if_all_were_stored_after_it_was_sent(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 5}).encode()
    given = utc_now()
    store.fault(path="studies", kind="status", status=503)
    assert store.deliver(handle, command, {}, published=given) == "unavailable"
    store.clear_faults()
    fill(store, studies=2)
    assert store.deliver(handle, command, {}, attempt=2, published=given) == ""
    *members, summary = store.run(handle)
    assert details(members) == [STORED_AGAIN, STORED_AGAIN]
    assert words([summary]) == [("rejected", "operation_failed")]
    assert len(store.found("instances")) == 8


@pytest.mark.parametrize("grown", ["1.1", "1.2"])
def test_a_study_that_grows_over_the_limit_does_not_refuse_what_an_earlier_delivery_planned(
    tmp_path: Path, grown: str
) -> None:
    with world("delete_resource", tmp_path, DELETE_MAX_INSTANCES="8") as store:
        fill(store, studies=2)
        data = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 2}).encode()
        given = utc_now()
        assert store.deliver(handle, data, {}, published=given) == ""
        store.put(instance(grown, f"{grown}.1", f"{grown}.1.9"))
        assert store.deliver(handle, data, {}, attempt=2, published=given) == ""
        assert not store.outcomes


def test_a_repeated_query_over_the_limit_is_still_refused_as_a_whole(at_most_3: World) -> None:
    at_most_3.put(instance("1.2", "1.2.1", "1.2.1.1"))
    command = {"query": "PatientName=Doe^Jane", "max_studies": 5}
    assert details(at_most_3.run(handle, command, attempt=2)) == [("rejected", TOO_MANY)]
    assert len(at_most_3.found("instances")) == 5


def test_a_study_that_waited_for_its_turn_and_was_stored_again_since_is_left(store: World) -> None:
    fill(store)
    (record,) = followed(store, follow_up(published="2020-01-01T00:00:00Z"))
    assert record["outcome"] == "rejected"
    assert record["detail"] == "stored again after the command was sent"
    assert len(store.found("instances")) == 4


def test_a_redelivery_continues_with_the_known_operation(tmp_path: Path) -> None:
    with world("delete_resource", tmp_path, options=Options(operation_s=3.0)) as store:
        fill(store)
        command = json.dumps({"path": "studies/1.1", "request_id": "r1"}).encode()
        assert store.deliver(handle, command, {}) == ""
        (message,) = store.follow_ups
        assert len(store.found("instances")) == 4
        store.follow_ups.append(dict(message))  # Pub/Sub may deliver it twice
        records = store.run(handle)
        assert words(records) == [("deleted", ""), ("deleted", "")]
        assert len({record["id"] for record in records}) == 1
        assert store.requests("DELETE", "delete") == 1


def test_a_follow_up_of_a_repeated_command_that_finds_nothing_says_what_may_have_happened(
    store: World,
) -> None:
    message = follow_up(late=True, targets=[["studies/1.1", 0, 0, 0, ""]])
    (record,) = followed(store, message)
    assert words([record]) == [("deleted", "not_found")]
    assert record["detail"] == "nothing was there; an earlier delivery may have deleted it"


def test_a_repeated_query_that_finds_nothing_says_what_may_have_happened(store: World) -> None:
    command = {"query": "PatientName=Doe^Jane", "max_studies": 5}
    (summary,) = store.run(handle, command, attempt=2)
    assert words([summary]) == [("deleted", "not_found")]
    assert summary["detail"] == "nothing was there; an earlier delivery may have deleted it"


def test_an_operation_longer_than_the_budget_is_followed_by_another_message(tmp_path: Path) -> None:
    with world("delete_resource", tmp_path, options=Options(operation_s=3.0)) as store:
        fill(store)
        records = store.run(handle, {"path": "studies/1.1"}, budget_s=1.5)
        assert words(records) == [("deleted", "")]
        assert store.deliveries > 2
        assert store.requests("DELETE", "delete") == 1


def test_the_command_may_be_killed_between_the_answer_and_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        transport, "_BACKOFF_S", 0.01
    )  # the second delivery comes while the operation still runs
    with world("delete_resource", tmp_path, options=Options(operation_s=5.0)) as store:
        fill(store)
        store.topics.refuse = ["UNAVAILABLE"] * 4  # every attempt to publish the operation's name
        records = store.run(handle, {"path": "studies/1.1"})
        assert store.answers[0] == "unavailable"
        assert words(records) == [("deleted", "")]
        assert not store.found("instances")


def test_an_outcome_that_cannot_be_published_does_not_lose_the_operation_that_runs(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    fill(store, studies=2)
    store.fault(method="DELETE", path="1.2$", kind="status", status=400, count=2)
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 2}).encode()
    assert store.deliver(handle, command, {}) == ""
    plan = base64.b64decode(store.follow_ups.pop()["data"])
    store.topics.refuse = ["UNAVAILABLE"] * 4  # every attempt to publish that 1.2 was rejected
    assert store.deliver(handle, plan, {}, follow_up=True) == ""
    (message,) = store.follow_ups
    follow_up = json.loads(base64.b64decode(message["data"]))
    running, rejected = follow_up["continue"]["targets"]
    assert running[0] == "studies/1.1"
    assert rejected[0] == "studies/1.2"
    assert running[4]
    *members, summary = store.run(handle)
    assert sorted(words(members)) == [("deleted", ""), ("rejected", "rejected")]
    assert summary["counts"] == {
        "deleted": 1,
        "not_found": 0,
        "failed": 1,
        "instances": 4,
    }


def test_an_operation_that_fails_is_tried_again_and_then_said_to_have_failed(store: World) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", code=14, count=2)
    assert words(store.run(handle, {"path": "studies/1.1"})) == [("deleted", "")]
    assert store.requests("DELETE", "delete") == 3
    fill(store)
    store.fault(method="DELETE", kind="operation", code=14, count=3)
    (record,) = store.run(handle, {"path": "studies/1.1"})
    assert record["outcome"] == "rejected"
    assert record["reason"] == "operation_failed"
    assert record["detail"] == "the operation ended with code 14 and 0 failures"


def test_a_delete_that_is_tried_again_spares_what_was_stored_since_the_command(
    store: World,
) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", code=14, count=1)
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, {}) == ""
    store.put(instance("1.1", "1.1.1", "1.1.1.9"))
    records = store.run(handle)
    assert details(records) == [STORED_AGAIN]
    assert store.requests("DELETE", "delete") == 1
    assert len(store.found("instances")) == 5


def test_a_delete_whose_answer_was_lost_spares_what_was_stored_since_the_command(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    fill(store, studies=2)
    # The plan of a query, so that the DELETE of 1.1 keeps the message from being handed back.
    store.forge(follow_up(published=utc_now(), by_query=True, targets=UNTRIED))
    store.fault(method="DELETE", path="1.2$", kind="reset", when="after", count=4)
    plan = base64.b64decode(store.follow_ups.pop()["data"])
    assert store.deliver(handle, plan, {}, follow_up=True) == ""
    store.put(instance("1.2", "1.2.1", "1.2.1.9"))
    *members, _ = store.run(handle)
    assert words(members) == [("deleted", ""), ("partial", "rejected")]
    assert instance_uids(store) == ["1.2.1.9"]


def test_a_delete_that_its_own_lost_operation_blocked_spares_what_was_stored_since_the_command(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    fill(store, studies=2)
    store.forge(follow_up(published=utc_now(), by_query=True, targets=UNTRIED))
    # The first answer is lost. The DELETE that follows finds its operation at work.
    store.fault(method="DELETE", path="1.2$", kind="reset", when="after", count=1)
    store.fault(method="DELETE", path="1.2$", kind="status", status=409, count=1)
    plan = base64.b64decode(store.follow_ups.pop()["data"])
    assert store.deliver(handle, plan, {}, follow_up=True) == ""
    store.put(instance("1.2", "1.2.1", "1.2.1.9"))
    *members, _ = store.run(handle)
    assert words(members) == [("deleted", ""), ("partial", "rejected")]
    assert instance_uids(store) == ["1.2.1.9"]


def test_a_study_that_is_uploaded_again_after_its_operation_ended_is_deleted(
    store: World,
) -> None:
    fill(store)
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, {}) == ""
    store.put(instance("1.1", "1.1.1", "1.1.1.9"))
    (record,) = store.run(handle)
    assert words([record]) == [("deleted", "")]
    assert record["counts"] == {"instances": 4}
    assert instance_uids(store) == ["1.1.1.9"]


def test_a_study_that_is_uploaded_again_after_a_part_of_it_was_deleted_is_partial(
    store: World,
) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", failure=1, count=1)
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, {}) == ""
    store.put(instance("1.1", "1.1.1", "1.1.1.9"))
    (record,) = store.run(handle)
    assert words([record]) == [("partial", "rejected")]
    assert record["detail"] == "stored again after the command was sent"
    assert record["counts"] == {"instances": 3}
    assert instance_uids(store) == ["1.1.1.9"]


def test_what_was_stored_after_the_command_is_not_deleted_by_an_operation_that_fails(
    store: World,
) -> None:
    sent = utc_now()
    fill(store)
    store.fault(method="DELETE", kind="operation", code=14, count=1)
    command = json.dumps({"path": "studies/1.1"}).encode()
    assert store.deliver(handle, command, {}, published=sent) == ""
    assert words(store.run(handle)) == [("rejected", "rejected")]
    assert len(store.found("instances")) == 4


def test_a_store_that_is_too_busy_for_a_delete_uses_up_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    with world("delete_resource", tmp_path, options=Options(operation_s=3.0)) as store:
        fill(store, studies=2)
        # Study 1.1 is being deleted meanwhile, so the message is not handed back.
        store.fault(method="DELETE", path="1.2$", kind="status", status=503, count=12)
        store.fault(method="DELETE", path="1.2$", kind="operation", code=14, count=1)
        *members, _ = store.run(handle, {"query": "PatientName=Doe^Jane", "max_studies": 2})
        assert words(members) == [("deleted", ""), ("deleted", "")]
        assert not store.found("instances")


def test_a_target_that_is_gone_before_its_second_try_was_deleted_by_this_request(
    store: World,
) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", failure=2)  # says so, but deletes all the same
    # The first two searches count, before the delete; the next one still shows deleted instances.
    show_deleted(store, skip=2, count=1)
    (record,) = store.run(handle, {"path": "studies/1.1"})
    assert record["outcome"] == "deleted"
    assert record.get("reason", "") == ""
    assert record["counts"] == {"instances": 4}


def test_an_operation_with_another_error_is_not_tried_again(store: World) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", code=7)
    assert words(store.run(handle, {"path": "studies/1.1"})) == [("rejected", "operation_failed")]
    assert store.requests("DELETE", "delete") == 1


def test_a_delete_that_fails_halfway_says_how_many_instances_are_gone(store: World) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", code=7)
    # An earlier try deleted two of six.
    (record,) = followed(store, follow_up(targets=[["studies/1.1", 6, 100, 1, ""]]))
    assert words([record]) == [("partial", "operation_failed")]
    assert record["counts"] == {"instances": 2}


def test_a_query_whose_only_study_was_deleted_halfway_is_partial(store: World) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", code=7)
    message = follow_up(by_query=True, targets=[["studies/1.1", 6, 100, 1, ""]])
    _, summary = followed(store, message)
    assert words([summary]) == [("partial", "operation_failed")]
    assert summary["counts"] == {
        "deleted": 0,
        "not_found": 0,
        "failed": 1,
        "instances": 2,
    }


def test_failures_of_a_successful_operation_count_only_if_instances_are_left(store: World) -> None:
    fill(store)
    store.fault(method="DELETE", kind="operation", failure=2)  # says so, but deletes all the same
    assert words(store.run(handle, {"path": "studies/1.1"})) == [("deleted", "")]


def test_a_cancelled_operation_is_left_alone(tmp_path: Path) -> None:
    import urllib.request

    with world("delete_resource", tmp_path, options=Options(operation_s=30.0)) as store:
        fill(store)
        assert store.deliver(handle, json.dumps({"path": "studies/1.1"}).encode(), {}) == ""
        operations = f"{store.store_url}/v1/{STORE_NAME.rpartition('/dicomStores')[0]}/operations"
        (operation,) = json.loads(urllib.request.urlopen(operations).read())["operations"]
        urllib.request.urlopen(
            urllib.request.Request(
                f"{store.store_url}/v1/{operation['name']}:cancel", b"{}", method="POST"
            )
        ).read()
        (record,) = store.run(handle)
        assert record["outcome"] == "rejected"
        assert record["detail"] == "the operation was cancelled"
        assert len(store.found("instances")) == 4


def test_part_of_a_query_may_fail(store: World) -> None:
    fill(store, studies=3)
    store.fault(method="DELETE", path="studies/1.2", kind="operation", code=7)
    *members, summary = store.run(handle, {"query": "PatientName=Doe^Jane", "max_studies": 3})
    assert sorted(words(members)) == [
        ("deleted", ""),
        ("deleted", ""),
        ("rejected", "operation_failed"),
    ]
    assert summary["outcome"] == "partial"
    assert summary["reason"] == "operation_failed"
    assert summary["counts"] == {
        "deleted": 2,
        "not_found": 0,
        "failed": 1,
        "instances": 8,
    }


@pytest.mark.parametrize(
    "fault", [{"method": "DELETE", "path": "1.2$"}, {"method": "GET", "path": "operations"}]
)
def test_a_study_that_the_store_refuses_does_not_stop_the_others(
    tmp_path: Path, fault: dict[str, Any]
) -> None:
    with world("delete_resource", tmp_path, options=Options(operation_s=0.5)) as store:
        fill(store, studies=7)
        store.fault(**fault, kind="status", status=400, count=1)
        command = {"query": "PatientName=Doe^Jane", "max_studies": 7}
        *members, summary = store.run(handle, command)
        deleted = [("deleted", "")] * 6
        assert sorted(words(members)) == [*deleted, ("rejected", "rejected")]
        studies = {f"studies/1.{number}" for number in range(1, 8)}
        assert {record["member"] for record in members} == studies
        assert summary["outcome"] == "partial"
        assert summary["counts"]["failed"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "DELETE", "path": "1.1$", "status": 409},
        {"method": "GET", "path": "studies/1.1/instances", "status": 503},
    ],
)
def test_a_study_that_cannot_be_started_now_does_not_hold_up_the_others(
    store: World, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    fill(store, studies=8)
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 8}).encode()
    assert store.deliver(handle, command, {}) == ""
    store.fault(**fault, kind="status")
    follow_ups_until_one_waits(store)
    assert words(store.outcomes) == [("deleted", "")] * 7
    assert store.answers[-1] in ("operation_pending", "unavailable")
    store.clear_faults()
    *_, summary = store.run(handle)
    assert summary["outcome"] == "deleted"
    assert summary["counts"]["deleted"] == 8


def test_a_study_that_cannot_be_polled_now_does_not_hold_up_the_others(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.01)
    fill(store, studies=8, series=1, instances=1)
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 8}).encode()
    assert store.deliver(handle, command, {}) == ""
    plan = base64.b64decode(store.follow_ups.pop()["data"])
    assert store.deliver(handle, plan, {}, follow_up=True) == ""
    store.fault(method="GET", path="studies/1.1/instances", kind="status", status=503)
    follow_ups_until_one_waits(store)
    assert words(store.outcomes) == [("deleted", "")] * 7
    assert store.answers[-1] == "unavailable"
    store.clear_faults()
    *_, summary = store.run(handle)
    assert summary["counts"]["deleted"] == 8


def test_a_store_that_limits_the_rate_is_not_asked_for_every_study(store: World) -> None:
    fill(store, studies=5, series=1, instances=1)
    command = json.dumps({"query": "PatientName=Doe^Jane", "max_studies": 5}).encode()
    assert store.deliver(handle, command, {}) == ""
    store.fault(path="instances", kind="status", status=429, retry_after=60)
    before = store.requests("GET", "search")
    plan = base64.b64decode(store.follow_ups.pop()["data"])
    assert store.deliver(handle, plan, {}, follow_up=True) == "rate_limited"
    assert store.requests("GET", "search") == before + 1


def follow_ups_until_one_waits(store: World) -> None:
    """Deliver each follow-up message once, until one is not acknowledged; that one stays."""
    for _ in range(20):
        message = store.follow_ups[0]
        if store.deliver(handle, base64.b64decode(message["data"]), {}, follow_up=True):
            return
        store.follow_ups.pop(0)
    raise AssertionError("all are acknowledged")


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "status", "status": 503, "count": 2},
        {"kind": "status", "status": 429, "retry_after": 1, "count": 1},
        {"kind": "reset", "count": 2},
        {"kind": "reset", "when": "after", "method": "DELETE", "count": 1},
        {"kind": "truncate", "bytes": 3, "method": "DELETE", "count": 1},
        {"kind": "truncate", "bytes": 3, "path": "operations", "count": 2},
    ],
)
def test_faults_of_the_store_are_outlived(store: World, rule: dict[str, Any]) -> None:
    fill(store)
    store.fault(**rule)
    records = store.run(handle, {"path": "studies/1.1"})
    assert [record["outcome"] for record in records] == ["deleted"]
    assert not store.found("instances")


def test_a_search_that_answers_no_list_does_not_mean_that_all_is_gone(tmp_path: Path) -> None:
    with world("delete_resource", tmp_path) as store:
        fill(store)
        store.fault(kind="status", status=200, body="{}", path="instances")
        assert (
            store.deliver(handle, json.dumps({"path": "studies/1.1"}).encode(), {}) == "unavailable"
        )
        assert not store.outcomes


def test_a_search_that_lags_is_asked_again(tmp_path: Path) -> None:
    with world("delete_resource", tmp_path) as store:
        fill(store)
        # The first search, before the delete, is right; the next two show deleted instances.
        show_deleted(store, skip=1, count=2)
        assert [r["outcome"] for r in store.run(handle, {"path": "studies/1.1"})] == ["deleted"]
