"""Delete, operations, metrics, storage class and dicomStores: sections 1, 6, 7, 12, 13 and 14."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.local.dicomstore.index import Index
from infra.local.dicomstore.rows import Instance, Uids
from tests.dicomstore.kit import Client, dicom, eventually, process

ONE = "studies/1.2/series/1.2.3/instances/1.2.3.4"
EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}


def test_6_an_instance_is_deleted_at_once_with_an_empty_object(store: Client) -> None:
    store.stored(dicom(), dicom(instance="5"))
    answer = store.delete(ONE)
    assert answer.status_code == 200 and answer.json() == {}
    assert store.get(ONE).status_code == 404 and len(store.found("instances")) == 1


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
    assert found["name"] == answer["name"] and found["done"] is True and found["response"] == EMPTY
    metadata = found["metadata"]
    assert metadata["@type"] == "type.googleapis.com/google.cloud.healthcare.v1.OperationMetadata"
    assert (
        metadata["apiMethodName"] == f"google.cloud.healthcare.v1.dicomweb.DicomWebService.{method}"
    )
    assert (
        metadata["counter"] == {"success": str(2 - left)}
        and metadata["createTime"] <= metadata["endTime"]
    )
    assert len(store.found("instances")) == left


def test_7_a_running_operation_is_not_done_and_deletes_at_its_end(
    start: Callable[..., Client],
) -> None:
    store = start(operation_s=3.0)
    store.stored(dicom())
    name = store.delete("studies/1.2").json()["name"]
    running = store.operation(name)
    assert (
        "done" not in running and "response" not in running and "endTime" not in running["metadata"]
    )
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
    assert ended["done"] and ended["error"]["code"] == 1 and "response" not in ended
    assert ended["metadata"]["cancelRequested"] is True and len(store.found("instances")) == 1
    assert store.post(dicom(instance="8")).status_code == 200, "it no longer blocks"


def test_7_an_operation_at_work_cannot_be_cancelled_and_blocks_until_its_end(
    start: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on, remove = threading.Event(), threading.Event(), Index.remove

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
    assert "done" not in running and running["metadata"]["cancelRequested"] is True
    assert store.post(dicom(instance="8")).status_code == 409, "it would be deleted with the rest"
    go_on.set()
    assert eventually(lambda: store.operation(name).get("done"))
    assert store.operation(name)["response"] == EMPTY and store.found("instances") == []
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
        assert answer.status_code == 404 and answer.json()["error"]["status"] == "NOT_FOUND"
    assert store.http.post(f"{store.dataset_url}/operations/1:cancel").status_code == 404


def test_7_an_operation_may_end_in_an_error_or_with_failures(store: Client) -> None:
    store.stored(dicom())
    store.fault(kind="operation", code=13, method="DELETE", count=1)
    ended = store.operation(store.delete("studies/1.2").json()["name"])
    assert ended["done"] and ended["error"]["code"] == 13 and "response" not in ended
    store.fault(kind="operation", failure=1, method="DELETE", count=1)
    ended = store.operation(store.delete("studies/1.2").json()["name"])
    assert ended["response"] == EMPTY and ended["metadata"]["counter"] == {
        "success": "1",
        "failure": "1",
    }


def test_7_v1beta1_names_its_own_version(store: Client) -> None:
    beta = Client(store.url, store.name, "v1beta1")
    beta.stored(dicom())
    method = beta.operation(beta.delete("studies/1.2").json()["name"])["metadata"]["apiMethodName"]
    assert method == "google.cloud.healthcare.v1beta1.dicomweb.DicomWebService.DeleteStudy"


def test_6_deleting_what_is_not_there_is_404(store: Client) -> None:
    for path in ("studies/9", "studies/9/series/9", "studies/9/series/9/instances/9"):
        assert store.delete(path).status_code == 404


def test_7_an_operation_cut_by_a_restart_is_finished_by_the_next_start(tmp_path: Path) -> None:
    with process(tmp_path, "--operation-s", "60") as (client, running):
        client.stored(dicom())
        name = client.delete("studies/1.2").json()["name"]
        running.kill()
    with process(tmp_path) as (client, _):
        assert client.operation(name)["done"] and client.found("instances") == []


def test_13_metrics_count_in_strings(store: Client) -> None:
    files = [
        dicom(),
        dicom(instance="5"),
        dicom(series="1.2.9", instance="9"),
        dicom("3.1", "3.2", "3.3"),
    ]
    store.stored(*files)
    study = store.get("studies/1.2:getStudyMetrics").json()
    assert study["study"] == f"{store.name}/dicomWeb/studies/1.2"
    assert (study["instanceCount"], study["seriesCount"]) == ("3", "2")
    assert (
        study["blobStorageSizeBytes"] == str(sum(map(len, files[:3])))
        and int(study["structuredStorageSizeBytes"]) > 0
    )
    series = store.get("studies/1.2/series/1.2.3:getSeriesMetrics").json()
    assert series["series"] == f"{store.name}/dicomWeb/studies/1.2/series/1.2.3"
    assert series["instanceCount"] == "2" and "seriesCount" not in series
    whole = store.http.get(f"{store.store_url}:getDICOMStoreMetrics").json()
    assert (whole["name"], whole["studyCount"], whole["seriesCount"], whole["instanceCount"]) == (
        store.name,
        "2",
        "3",
        "4",
    )
    assert store.get("studies/9:getStudyMetrics").status_code == 404


def test_13_storage_info(store: Client) -> None:
    store.stored(dicom())
    info = store.get(ONE + ":getStorageInfo").json()
    assert info["referencedResource"] == f"{store.name}/dicomWeb/{ONE}"
    blob = info["blobStorageInfo"]
    assert blob["sizeBytes"] == str(len(dicom())) and blob["storageClass"] == "STANDARD"
    assert (
        blob["storageClassUpdateTime"].endswith("Z")
        and int(info["structuredStorageInfo"]["sizeBytes"]) > 0
    )


@pytest.mark.parametrize(
    "body",
    [
        {"blobStorageSettings": {"blobStorageClass": "NEARLINE"}},
        {"blob_storage_settings": {"blob_storage_class": "NEARLINE"}},
    ],
)
@pytest.mark.parametrize("path", ["studies/1.2", "studies/1.2/series/1.2.3", ONE])
def test_13_set_blob_storage_settings_at_every_level(
    store: Client, path: str, body: dict[str, object]
) -> None:
    store.stored(dicom())
    name = store.http.post(f"{store.web}/{path}:setBlobStorageSettings", json=body).json()["name"]
    ended = store.operation(name)
    assert ended["response"] == EMPTY and ended["metadata"]["counter"] == {"success": "1"}
    service = "google.cloud.healthcare.v1.storageinfo.StorageInfoService.SetBlobStorageSettings"
    assert ended["metadata"]["apiMethodName"] == service
    assert (
        store.get(ONE + ":getStorageInfo").json()["blobStorageInfo"]["storageClass"] == "NEARLINE"
    )


def test_13_an_unknown_class_is_400(store: Client) -> None:
    store.stored(dicom())
    for body in (
        {},
        {"blobStorageSettings": "NEARLINE"},
        {"blobStorageSettings": {"blobStorageClass": "WARM"}},
    ):
        assert (
            store.http.post(
                f"{store.web}/studies/1.2:setBlobStorageSettings", json=body
            ).status_code
            == 400
        )


LISTED = {
    "/storage/v1/b/lists/o/night%2F1.txt?alt=media":
        b"/studies/1.2/series/1.2.3/instances/1.2.3.4\r\n/studies/1.2/series/1.2.3\r\n/studies/3.1\n/studies/9\n",
    "/storage/v1/b/lists/o/wrong?alt=media": b"/studies/1.2\nstudies/3.1\n",
    "/storage/v1/b/lists/o/empty?alt=media": b"\n",
}  # fmt: skip


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a bucket server with lists of resources."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = LISTED.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def filtered(uri: object) -> dict[str, object]:
    """A change to COLDLINE of what a file lists."""
    settings = {"blobStorageSettings": {"blobStorageClass": "COLDLINE"}}
    return {**settings, "filterConfig": {"resourcePathsGcsUri": uri}}


def storage_class(store: Client, path: str) -> str:
    """The storage class of an instance."""
    return str(store.get(path + ":getStorageInfo").json()["blobStorageInfo"]["storageClass"])


def test_13_a_list_in_a_bucket_says_what_changes(start: Callable[..., Client], bucket: str) -> None:
    store = start(storage_url=bucket)
    store.stored(dicom(), dicom(series="1.2.9", instance="9"), dicom("3.1", "3.2", "3.3"))
    body = filtered("gs://lists/night/1.txt")
    ended = store.operation(
        store.http.post(f"{store.store_url}:setBlobStorageSettings", json=body).json()["name"]
    )
    assert ended["response"] == EMPTY and ended["metadata"]["counter"] == {
        "success": "2",
        "failure": "1",
    }
    assert (
        storage_class(store, ONE)
        == storage_class(store, "studies/3.1/series/3.2/instances/3.3")
        == "COLDLINE"
    )
    assert storage_class(store, "studies/1.2/series/1.2.9/instances/9") == "STANDARD"


@pytest.mark.parametrize(
    "uri", ["gs://lists/missing", "gs://lists/wrong", "gs://lists/empty", "x y", "gs://", 7]
)
def test_13_a_list_that_is_none_is_400(
    start: Callable[..., Client], bucket: str, uri: object
) -> None:
    store = start(storage_url=bucket)
    store.stored(dicom())
    answer = store.http.post(f"{store.store_url}:setBlobStorageSettings", json=filtered(uri))
    assert answer.status_code == 400 and answer.json()["error"]["message"].startswith(
        "filterConfig"
    )
    assert storage_class(store, ONE) == "STANDARD"


def test_13_a_list_belongs_to_the_store_and_needs_a_bucket_server(
    start: Callable[..., Client],
) -> None:
    store = start()
    store.stored(dicom())
    for path in (f"{store.web}/studies/1.2", f"{store.web}/{ONE}"):
        answer = store.http.post(
            f"{path}:setBlobStorageSettings", json=filtered("gs://lists/night/1.txt")
        )
        assert (
            answer.status_code == 400
            and "belongs to the path of a store" in answer.json()["error"]["message"]
        )
    whole = {"blobStorageSettings": {"blobStorageClass": "COLDLINE"}}
    assert (
        store.http.post(f"{store.store_url}:setBlobStorageSettings", json=whole).status_code == 400
    )
    answer = store.http.post(
        f"{store.store_url}:setBlobStorageSettings", json=filtered("gs://lists/night/1.txt")
    )
    assert (
        answer.status_code == 501 and "STORAGE_EMULATOR_HOST" in answer.json()["error"]["message"]
    )
    assert storage_class(store, ONE) == "STANDARD"


def test_1_dicom_stores_are_created_got_listed_and_deleted(store: Client) -> None:
    base = f"{store.root}/projects/p/locations/l/datasets/d/dicomStores"
    created = store.http.post(
        base, params={"dicomStoreId": "s.1", "alt": "json"}, json={"labels": {"a": "b"}}
    )
    name = "projects/p/locations/l/datasets/d/dicomStores/s.1"
    assert created.status_code == 200 and created.json() == {"name": name, "labels": {"a": "b"}}
    again = store.http.post(base, params={"dicomStoreId": "s.1"}, json={})
    assert again.status_code == 409 and again.json()["error"]["status"] == "ALREADY_EXISTS"
    for n in range(3):
        store.http.post(base, params={"dicomStoreId": f"t{n}"})
    listed = store.http.get(base, params={"pageSize": 3}).json()
    assert [one["name"].rpartition("/")[2] for one in listed["dicomStores"]] == ["s.1", "t0", "t1"]
    assert (
        len(
            store.http.get(base, params={"pageToken": listed["nextPageToken"]}).json()[
                "dicomStores"
            ]
        )
        == 1
    )
    other = Client(store.url, name)
    other.stored(dicom())
    assert store.found("studies") == [] and len(other.found("studies")) == 1, (
        "stores do not share instances"
    )
    assert store.http.delete(f"{base}/s.1").json() == {}
    missing = store.http.get(f"{base}/s.1")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == 404
    assert other.get("studies").status_code == 404
    assert store.http.post(base, params={"dicomStoreId": "a/b"}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/dicomWeb/studies"), ("PUT", "/dicomWeb/studies/1.2"), ("PATCH", "/dicomWeb/studies/1.2/metadata"),
     ("PATCH", f"/dicomWeb/{ONE}/metadata"), ("POST", ":import"), ("POST", ":export"), ("POST", ":deidentify")],
)  # fmt: skip
def test_12_and_14_what_is_left_out_says_so_with_501(store: Client, method: str, path: str) -> None:
    beta = Client(store.url, store.name, "v1beta1")
    answer = beta.http.request(method, beta.store_url + path, json={})
    assert answer.status_code == 501 and answer.json()["error"]["status"] == "UNIMPLEMENTED"
    assert "not part of this local store" in answer.json()["error"]["message"]


def test_9_other_requests_are_limited_to_10_mb(store: Client) -> None:
    store.stored(dicom())
    answer = store.http.post(
        f"{store.web}/studies/1.2:setBlobStorageSettings", data=b" " * 10_000_001
    )
    assert answer.status_code == 413
