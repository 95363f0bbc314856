"""Delete and operations: sections 6 and 7."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.dicomstore.index import Index
from infra.local.dicomstore.rows import Instance, Uids
from tests.dicomstore.kit import ONE, Client, dicom, eventually, process

EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}


def test_6_an_instance_is_deleted_at_once_with_an_empty_object(store: Client) -> None:
    store.stored(dicom(), dicom(instance="5"))
    answer = store.delete(ONE)
    assert answer.status_code == 200
    assert answer.json() == {}
    assert store.get(ONE).status_code == 404
    assert len(store.found("instances")) == 1


def test_6_an_empty_series_and_study_vanish(store: Client) -> None:
    store.stored(dicom(), dicom(series="1.2.9", instance="9"))
    store.delete(ONE)
    assert [item["0020000E"]["Value"][0] for item in store.found("series")] == ["1.2.9"]
    store.delete("studies/1.2/series/1.2.9/instances/9")
    assert store.found("studies") == []
    store.stored(dicom())
    assert len(store.found("studies")) == 1


@pytest.mark.parametrize(
    ("path", "method", "left"),
    [("studies/1.2", "DeleteStudy", 0), ("studies/1.2/series/1.2.3", "DeleteSeries", 1)],
)
def test_6_and_7_study_and_series_deletes_are_operations(
    store: Client, path: str, method: str, left: int
) -> None:
    store.stored(dicom(), dicom(series="1.2.9", instance="9"))
    answer = store.delete(path).json()
    assert set(answer) == {"name"}
    assert answer["name"].startswith(store.name.partition("/dicomStores/")[0] + "/operations/")
    found = store.operation(answer["name"])
    assert found["name"] == answer["name"]
    assert found["done"] is True
    assert found["response"] == EMPTY
    metadata = found["metadata"]
    assert metadata["@type"] == "type.googleapis.com/google.cloud.healthcare.v1.OperationMetadata"
    assert (
        metadata["apiMethodName"] == f"google.cloud.healthcare.v1.dicomweb.DicomWebService.{method}"
    )
    assert metadata["counter"] == {"success": str(2 - left)}
    assert metadata["createTime"] <= metadata["endTime"]
    assert len(store.found("instances")) == left


def test_7_a_running_operation_is_not_done_and_deletes_at_its_end(
    start: Callable[..., Client],
) -> None:
    store = start(operation_s=3.0)
    store.stored(dicom())
    name = store.delete("studies/1.2").json()["name"]
    running = store.operation(name)
    assert "done" not in running
    assert "response" not in running
    assert "endTime" not in running["metadata"]
    assert eventually(lambda: store.operation(name).get("done"))
    assert store.found("instances") == []


def test_7_a_cancelled_operation_ends_with_code_1_and_deletes_nothing(
    start: Callable[..., Client],
) -> None:
    store = start(operation_s=30)
    store.stored(dicom())
    name = store.delete("studies/1.2").json()["name"]
    assert store.http.post(f"{store.root}/{name}:cancel").json() == {}
    ended = store.operation(name)
    assert ended["done"]
    assert ended["error"]["code"] == 1
    assert "response" not in ended
    assert ended["metadata"]["cancelRequested"] is True
    assert len(store.found("instances")) == 1
    assert store.post(dicom(instance="8")).status_code == 200, "it no longer blocks"


def test_7_an_operation_at_work_cannot_be_cancelled_and_blocks_until_its_end(
    start: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = threading.Event()
    go_on = threading.Event()
    remove = Index.remove

    def held(self: Index, store: int, uids: Uids) -> list[Instance]:
        at_work.set()
        assert go_on.wait(60)
        return remove(self, store, uids)

    monkeypatch.setattr(Index, "remove", held)
    store = start(operation_s=0.01)
    store.stored(dicom())
    name = store.delete("studies/1.2").json()["name"]
    assert at_work.wait(60)
    assert store.http.post(f"{store.root}/{name}:cancel").json() == {}
    running = store.operation(name)
    assert "done" not in running
    assert running["metadata"]["cancelRequested"] is True
    assert store.post(dicom(instance="8")).status_code == 409, "it would be deleted with the rest"
    go_on.set()
    assert eventually(lambda: store.operation(name).get("done"))
    assert store.operation(name)["response"] == EMPTY
    assert store.found("instances") == []
    assert store.post(dicom(instance="8")).status_code == 200


def test_6_only_deletes_block_stores(start: Callable[..., Client]) -> None:
    store = start(operation_s=30)
    store.stored(dicom())
    body = {"blobStorageSettings": {"blobStorageClass": "COLDLINE"}}
    assert "done" not in store.operation(
        store.http.post(f"{store.web}/studies/1.2:setBlobStorageSettings", json=body).json()["name"]
    )
    assert store.post(dicom(instance="8")).status_code == 200
    store.delete("studies/1.2")
    assert store.post(dicom(instance="9")).status_code == 409


def test_7_operations_are_listed_in_pages(store: Client) -> None:
    for n in range(3):
        store.stored(dicom(f"1.{n}", f"1.{n}.1", f"1.{n}.1.1"))
    names = [store.delete(f"studies/1.{n}").json()["name"] for n in range(3)]
    first = store.http.get(f"{store.dataset_url}/operations", params={"pageSize": 2}).json()
    page = {"pageSize": 2, "pageToken": first["nextPageToken"]}
    second = store.http.get(f"{store.dataset_url}/operations", params=page).json()
    assert [one["name"] for one in first["operations"] + second["operations"]] == names
    assert "nextPageToken" not in second


def test_7_an_unknown_operation_is_404_in_the_platform_shape(store: Client) -> None:
    for number in ("1", "x", "99999999999999999999999"):
        answer = store.http.get(f"{store.dataset_url}/operations/{number}")
        assert answer.status_code == 404
        assert answer.json()["error"]["status"] == "NOT_FOUND"
    assert store.http.post(f"{store.dataset_url}/operations/1:cancel").status_code == 404


def test_7_an_operation_may_end_in_an_error_or_with_failures(store: Client) -> None:
    store.stored(dicom())
    store.fault(kind="operation", code=13, method="DELETE", count=1)
    ended = store.operation(store.delete("studies/1.2").json()["name"])
    assert ended["done"]
    assert ended["error"]["code"] == 13
    assert "response" not in ended
    store.fault(kind="operation", failure=1, method="DELETE", count=1)
    ended = store.operation(store.delete("studies/1.2").json()["name"])
    assert ended["response"] == EMPTY
    assert ended["metadata"]["counter"] == {
        "success": "1",
        "failure": "1",
    }


def test_7_v1beta1_names_its_own_version(store: Client) -> None:
    beta = Client(store.url, store.name, "v1beta1")
    beta.stored(dicom())
    method = beta.operation(beta.delete("studies/1.2").json()["name"])["metadata"]["apiMethodName"]
    assert method == "google.cloud.healthcare.v1beta1.dicomweb.DicomWebService.DeleteStudy"


def test_6_deleting_a_missing_resource_is_404(store: Client) -> None:
    for path in ("studies/9", "studies/9/series/9", "studies/9/series/9/instances/9"):
        assert store.delete(path).status_code == 404


def test_7_an_operation_cut_by_a_restart_is_finished_by_the_next_start(tmp_path: Path) -> None:
    with process(tmp_path, "--operation-s", "60") as (client, running):
        client.stored(dicom())
        name = client.delete("studies/1.2").json()["name"]
        running.kill()
    with process(tmp_path) as (client, _):
        assert client.operation(name)["done"]
        assert client.found("instances") == []
