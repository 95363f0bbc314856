"""datasets, dicomStores and the other URLs of the API: sections 1, 7 and 8."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.dicomstore.kit import ONE, SINGLE, Client, dicom, failures

LOCATION = "projects/p/locations/l"
DATASET = f"{LOCATION}/datasets/d"
STORE = f"{DATASET}/dicomStores/s"


class Api:
    """The JSON methods, as google-api-python-client calls them: `?alt=json`, a body of JSON."""

    def __init__(self, store: Client) -> None:
        self._http = store.http
        self.root = store.root

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> requests.Response:
        """Send one request."""
        return self._http.request(
            method,
            f"{self.root}/{path}",
            params={"alt": "json", **params},
            json=body,
            headers={"Accept": "application/json"},
            timeout=30,
        )

    def created(self, **labels: str) -> None:
        """Create the dataset, and a store of these labels in it."""
        assert self.call("POST", f"{LOCATION}/datasets", {}, datasetId="d").status_code == 200
        answer = self.call("POST", f"{DATASET}/dicomStores", {"labels": labels}, dicomStoreId="s")
        assert answer.status_code == 200


@pytest.fixture
def api(start: Callable[..., Client]) -> Api:
    """The methods on a separate server, without datasets of other tests."""
    return Api(start())


def error(answer: requests.Response) -> tuple[int, str]:
    """Code and status of an error in the API's shape."""
    found = answer.json()["error"]
    assert found["code"] == answer.status_code
    assert found["message"]
    return found["code"], found["status"]


# --- datasets ---


def test_1_creating_a_dataset_is_an_operation_that_is_done(api: Api) -> None:
    answer = api.call("POST", f"{LOCATION}/datasets", {"timeZone": "UTC"}, datasetId="d").json()
    assert answer["name"].startswith(f"{DATASET}/operations/")
    assert answer["done"] is True
    kind = "type.googleapis.com/google.cloud.healthcare.v1.dataset.Dataset"
    assert answer["response"] == {"@type": kind, "name": DATASET}
    assert api.call("GET", answer["name"]).json() == answer


def test_1_a_dataset_is_returned_with_its_fields(api: Api) -> None:
    api.call("POST", f"{LOCATION}/datasets", {"timeZone": "UTC"}, datasetId="d")
    assert api.call("GET", DATASET).json() == {"name": DATASET, "timeZone": "UTC"}


def test_1_a_dataset_is_patched(api: Api) -> None:
    api.created()
    mask = {"updateMask": "timeZone"}
    answer = api.call("PATCH", DATASET, {"timeZone": "Europe/Berlin"}, **mask)
    assert answer.json() == {"name": DATASET, "timeZone": "Europe/Berlin"}
    assert api.call("GET", DATASET).json() == answer.json()


def test_1_datasets_are_listed_page_by_page(api: Api) -> None:
    for name in ("a", "b", "c"):
        api.call("POST", f"{LOCATION}/datasets", {}, datasetId=name)
    first = api.call("GET", f"{LOCATION}/datasets", pageSize=2).json()
    assert [one["name"] for one in first["datasets"]] == [
        f"{LOCATION}/datasets/a",
        f"{LOCATION}/datasets/b",
    ]
    token = first["nextPageToken"]
    rest = api.call("GET", f"{LOCATION}/datasets", pageToken=token).json()
    assert rest == {"datasets": [{"name": f"{LOCATION}/datasets/c"}]}


def test_1_creating_an_existing_dataset_is_409(api: Api) -> None:
    api.created()
    answer = api.call("POST", f"{LOCATION}/datasets", {}, datasetId="d")
    assert error(answer) == (409, "ALREADY_EXISTS")


def test_1_a_dataset_is_deleted_with_all_that_is_in_it(api: Api) -> None:
    api.created()
    web = f"{api.root}/{STORE}/dicomWeb/studies"
    kind = {"Content-Type": "application/dicom"}
    assert requests.post(web, dicom(), headers=kind, timeout=30).status_code == 200
    assert api.call("DELETE", DATASET).json() == {}
    assert error(api.call("GET", DATASET)) == (404, "NOT_FOUND")
    assert error(api.call("GET", STORE)) == (404, "NOT_FOUND")
    api.created()
    assert requests.get(web, timeout=30).status_code == 204


def test_1_a_dataset_exists_when_it_has_a_store(api: Api) -> None:
    api.call("POST", f"{DATASET}/dicomStores", {}, dicomStoreId="s")
    assert api.call("GET", DATASET).json() == {"name": DATASET}


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 300])
def test_1_a_dataset_needs_an_id(api: Api, name: str) -> None:
    answer = api.call("POST", f"{LOCATION}/datasets", {}, datasetId=name)
    assert error(answer) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, f"{resource}:{verb}")
        for resource in (DATASET, STORE)
        for method, verb in (
            ("GET", "getIamPolicy"),
            ("POST", "setIamPolicy"),
            ("POST", "testIamPermissions"),
        )
    ],
)
def test_1_iam_methods_are_501(api: Api, method: str, path: str) -> None:
    api.created()
    assert error(api.call(method, path, {})) == (501, "UNIMPLEMENTED")


# --- lists ---


@pytest.mark.parametrize(
    "text",
    [
        "labels.team=ct",
        'labels.team="ct"',
        "labels.team=ct AND labels.stage=test",
    ],
)
def test_1_stores_are_listed_by_their_labels(api: Api, text: str) -> None:
    stores = f"{DATASET}/dicomStores"
    api.created(team="ct", stage="test")
    api.call("POST", stores, {"labels": {"team": "mr"}}, dicomStoreId="t")
    found = api.call("GET", stores, filter=text).json()
    assert [one["name"] for one in found["dicomStores"]] == [STORE]


def test_1_no_store_has_a_label_that_none_was_given(api: Api) -> None:
    api.created(team="ct")
    found = api.call("GET", f"{DATASET}/dicomStores", filter="labels.team=us")
    assert found.json() == {}


@pytest.mark.parametrize("text", ["name=s", "labels.team", "team=ct", "NOT labels.team=ct"])
def test_1_another_filter_is_refused_not_ignored(api: Api, text: str) -> None:
    api.created()
    answer = api.call("GET", f"{DATASET}/dicomStores", filter=text)
    assert error(answer) == (400, "INVALID_ARGUMENT")


def test_7_a_filter_of_operations_is_refused_not_ignored(api: Api) -> None:
    api.created()
    answer = api.call("GET", f"{DATASET}/operations", filter="done=true")
    assert error(answer) == (501, "UNIMPLEMENTED")


@pytest.mark.parametrize(
    "params",
    [
        {"pageSize": "x"},
        {"pageSize": "-1"},
        {"pageSize": "1001"},
        {"pageToken": "x"},
        {"pageToken": "99"},
    ],
)
@pytest.mark.parametrize(
    "path", [f"{LOCATION}/datasets", f"{DATASET}/dicomStores", f"{DATASET}/operations"]
)
def test_1_a_page_that_is_none_is_refused(api: Api, path: str, params: dict[str, str]) -> None:
    api.created()
    assert error(api.call("GET", path, **params)) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "body",
    [
        {"labels": ["a"]},
        {"labels": {"a": 1}},
        {"notificationConfigs": {"pubsubTopic": "projects/p/topics/t"}},
        {"notificationConfigs": [{"pubsubTopic": 1}]},
        {"notificationConfig": {"pubsubTopic": "t"}},
    ],
)
def test_1_a_store_of_wrong_types_is_400(api: Api, body: Any) -> None:
    answer = api.call("POST", f"{DATASET}/dicomStores", body, dicomStoreId="s")
    assert error(answer) == (400, "INVALID_ARGUMENT")


# --- paths and methods ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "projects"),
        ("GET", f"{STORE}/dicomWeb/nothing"),
        ("GET", f"{STORE}/dicomWeb/studies/1.2/thumbnail"),
        ("POST", f"{STORE}:unknown"),
        ("GET", ""),
    ],
)
def test_8_a_path_that_is_none_is_404_in_the_words_of_the_api(
    api: Api, method: str, path: str
) -> None:
    api.created()
    answer = api.call(method, path)
    assert error(answer) == (404, "NOT_FOUND")
    assert answer.json()["error"]["message"] == "Method not found."
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "studies"),
        ("PUT", "studies/1.2"),
        ("PATCH", "studies/1.2/metadata"),
        ("PATCH", "studies/1.2/series/1.3/instances/1.4/metadata"),
    ],
)
def test_14_updates_are_not_in_v1(store: Client, method: str, path: str) -> None:
    answer = store.http.request(method, f"{store.web}/{path}", json={}, timeout=30)
    assert error(answer)[0] == 405


def test_8_another_method_of_a_path_is_405_and_says_which_there_are(store: Client) -> None:
    answer = store.http.post(f"{store.web}/instances", timeout=30)
    assert error(answer)[0] == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_4_4_an_empty_search_is_204_without_a_content_type(store: Client) -> None:
    answer = store.get("studies")
    assert answer.status_code == 204
    assert answer.content == b""
    assert "Content-Type" not in answer.headers


# --- what the how-to's and Google's own samples do ---


def test_the_sequence_of_googles_samples_from_create_dataset_to_the_end(api: Api) -> None:
    """healthcare/api-client/v1: datasets, dicom_stores and dicomweb, as their tests call them."""
    created = api.call("POST", f"{LOCATION}/datasets", {}, datasetId="d").json()
    assert created["response"]["name"] == DATASET
    answer = api.call("POST", f"{DATASET}/dicomStores", {}, dicomStoreId="s")
    assert answer.json()["name"] == STORE
    listed = api.call("GET", f"{DATASET}/dicomStores").json()["dicomStores"]
    assert STORE in [one["name"] for one in listed]
    topic = {"notificationConfig": {"pubsubTopic": "projects/p/topics/t"}}
    mask = {"updateMask": "notificationConfig"}
    assert api.call("PATCH", STORE, topic, **mask).json() == {"name": STORE, **topic}

    session = requests.Session()
    session.headers["Authorization"] = "Bearer token"
    web = f"{api.root}/{STORE}/dicomWeb"
    sent = {"Content-Type": "application/dicom"}
    stored = session.post(f"{web}/studies", data=dicom(), headers=sent)
    assert stored.status_code == 200
    json_type = {"Content-Type": "application/dicom+json; charset=utf-8"}
    assert len(session.get(f"{web}/instances", headers=json_type).json()) == 1
    study = f"{web}/studies/1.2"
    sample_type = {"Content-Type": "application/dicom+json; charset=utf-8"}
    assert session.get(study, headers=sample_type).status_code == 200
    name = {"PatientName": "Doe^Jane"}
    assert len(session.get(f"{web}/studies", params=name).json()) == 1
    instance = f"{study}/series/1.2.3/instances/1.2.3.4"
    whole = {"Accept": "application/dicom; transfer-syntax=*"}
    assert session.get(instance, headers=whole).content == dicom()

    deleted = session.delete(study, headers=json_type)
    assert deleted.status_code == 200
    assert api.call("GET", deleted.json()["name"]).json()["done"] is True
    assert api.call("DELETE", STORE).json() == {}
    assert api.call("DELETE", DATASET).json() == {}


def test_3_1_the_powershell_sample_stores_as_printed(store: Client) -> None:
    """Invoke-WebRequest -InFile names no Content-Type, and so sends that of a form."""
    answer = store.post(dicom(), "application/x-www-form-urlencoded")
    assert answer.status_code == 200
    assert failures(answer) == []
    assert store.get(ONE, SINGLE).content == dicom()


@pytest.mark.parametrize("accept", ["application/dicom", "application/dicom, */*;q=0.1"])
def test_17_accept_dicom_on_a_store_request_gives_the_default_answer(
    store: Client, accept: str
) -> None:
    answer = store.post(dicom(), Accept=accept)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom+xml"


STORES = "projects/p/locations/l/datasets/d/dicomStores"


def test_1_dicom_stores_are_created_got_listed_and_deleted(store: Client) -> None:
    base = f"{store.root}/{STORES}"
    labels = {"labels": {"a": "b"}}
    parameters = {"dicomStoreId": "s.1", "alt": "json"}
    created = store.http.post(base, params=parameters, json=labels)
    assert created.status_code == 200
    assert created.json() == {"name": f"{STORES}/s.1", **labels}
    again = store.http.post(base, params={"dicomStoreId": "s.1"}, json={})
    assert again.status_code == 409
    assert again.json()["error"]["status"] == "ALREADY_EXISTS"
    for n in range(3):
        store.http.post(base, params={"dicomStoreId": f"t{n}"})
    listed = store.http.get(base, params={"pageSize": 3}).json()
    ids = [one["name"].rpartition("/")[2] for one in listed["dicomStores"]]
    assert ids == ["s.1", "t0", "t1"]
    rest = store.http.get(base, params={"pageToken": listed["nextPageToken"]}).json()
    assert len(rest["dicomStores"]) == 1
    assert store.http.delete(f"{base}/s.1").json() == {}
    missing = store.http.get(f"{base}/s.1")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == 404


def test_1_an_id_with_a_slash_is_400(store: Client) -> None:
    answer = store.http.post(f"{store.root}/{STORES}", params={"dicomStoreId": "a/b"})
    assert answer.status_code == 400


def test_1_stores_share_no_instances_and_a_deleted_one_has_none(store: Client) -> None:
    base = f"{store.root}/{STORES}"
    store.http.post(base, params={"dicomStoreId": "s.1"})
    other = Client(store.url, f"{STORES}/s.1")
    other.stored(dicom())
    assert store.found("studies") == []
    assert len(other.found("studies")) == 1
    store.http.delete(f"{base}/s.1")
    assert other.get("studies").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/dicomWeb/studies"),
        ("PUT", "/dicomWeb/studies/1.2"),
        ("PATCH", "/dicomWeb/studies/1.2/metadata"),
        ("PATCH", f"/dicomWeb/{ONE}/metadata"),
        ("POST", ":import"),
        ("POST", ":export"),
        ("POST", ":deidentify"),
    ],
)
def test_12_and_14_unsupported_methods_are_501(store: Client, method: str, path: str) -> None:
    beta = Client(store.url, store.name, "v1beta1")
    answer = beta.http.request(method, beta.store_url + path, json={})
    assert answer.status_code == 501
    assert answer.json()["error"]["status"] == "UNIMPLEMENTED"
    assert "not part of this local store" in answer.json()["error"]["message"]


def test_9_other_requests_are_limited_to_10_mb(store: Client) -> None:
    store.stored(dicom())
    answer = store.http.post(
        f"{store.web}/studies/1.2:setBlobStorageSettings", data=b" " * 10_000_001
    )
    assert answer.status_code == 413
