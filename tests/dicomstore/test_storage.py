"""Metrics, storage information and storage classes: section 13."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.dicomstore.kit import ONE, Client, dicom

EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}


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
    assert study["instanceCount"] == "3"
    assert study["seriesCount"] == "2"
    assert study["blobStorageSizeBytes"] == str(sum(map(len, files[:3])))
    assert int(study["structuredStorageSizeBytes"]) > 0
    series = store.get("studies/1.2/series/1.2.3:getSeriesMetrics").json()
    assert series["series"] == f"{store.name}/dicomWeb/studies/1.2/series/1.2.3"
    assert series["instanceCount"] == "2"
    assert "seriesCount" not in series
    whole = store.http.get(f"{store.store_url}:getDICOMStoreMetrics").json()
    assert whole["name"] == store.name
    assert whole["studyCount"] == "2"
    assert whole["seriesCount"] == "3"
    assert whole["instanceCount"] == "4"
    assert store.get("studies/9:getStudyMetrics").status_code == 404


def test_13_storage_info(store: Client) -> None:
    store.stored(dicom())
    info = store.get(ONE + ":getStorageInfo").json()
    assert info["referencedResource"] == f"{store.name}/dicomWeb/{ONE}"
    blob = info["blobStorageInfo"]
    assert blob["sizeBytes"] == str(len(dicom()))
    assert blob["storageClass"] == "STANDARD"
    assert blob["storageClassUpdateTime"].endswith("Z")
    assert int(info["structuredStorageInfo"]["sizeBytes"]) > 0


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
    assert ended["response"] == EMPTY
    assert ended["metadata"]["counter"] == {"success": "1"}
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
    "/storage/v1/b/lists/o/night%2F1.txt?alt=media": (
        b"/studies/1.2/series/1.2.3/instances/1.2.3.4\r\n"
        b"/studies/1.2/series/1.2.3\r\n"
        b"/studies/3.1\n"
        b"/studies/9\n"
    ),
    "/storage/v1/b/lists/o/wrong?alt=media": b"/studies/1.2\nstudies/3.1\n",
    "/storage/v1/b/lists/o/empty?alt=media": b"\n",
}


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


def test_13_a_list_in_a_bucket_selects_the_instances(
    start: Callable[..., Client], bucket: str
) -> None:
    store = start(storage_url=bucket)
    store.stored(dicom(), dicom(series="1.2.9", instance="9"), dicom("3.1", "3.2", "3.3"))
    body = filtered("gs://lists/night/1.txt")
    ended = store.operation(
        store.http.post(f"{store.store_url}:setBlobStorageSettings", json=body).json()["name"]
    )
    assert ended["response"] == EMPTY
    assert ended["metadata"]["counter"] == {
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
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("filterConfig")
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
        assert answer.status_code == 400
        assert "belongs to the path of a store" in answer.json()["error"]["message"]
    whole = {"blobStorageSettings": {"blobStorageClass": "COLDLINE"}}
    assert (
        store.http.post(f"{store.store_url}:setBlobStorageSettings", json=whole).status_code == 400
    )
    answer = store.http.post(
        f"{store.store_url}:setBlobStorageSettings", json=filtered("gs://lists/night/1.txt")
    )
    assert answer.status_code == 501
    assert "STORAGE_EMULATOR_HOST" in answer.json()["error"]["message"]
    assert storage_class(store, ONE) == "STANDARD"
