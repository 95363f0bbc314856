"""What the index keeps and forgets: one process a folder, corrected names, deleted stores."""

import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.dicomstore.kit import Client, dicom, process, start_command, uids

SERIES = "studies/1.2/series/1.2.3"


def rows(data: Path, table: str) -> int:
    """How many rows a table of the index has."""
    with sqlite3.connect(data / "index.sqlite") as db:
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def names(client: Client, name: str) -> list[str]:
    """The studies found by a patient's name."""
    return uids(client.found("studies", PatientName=name))


def test_a_second_store_on_one_folder_is_refused_with_one_line(tmp_path: Path) -> None:
    command = start_command(tmp_path)
    with process(tmp_path) as (client, _):
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert second.stdout == ""
        assert second.stderr == (
            f"error: another DICOM store runs on {tmp_path};"
            " stop it, or choose a folder with --data\n"
        )
        client.stored(dicom())
    with process(tmp_path) as (client, _):
        assert len(client.found("instances")) == 1, "a killed one hinders nobody"


def test_4_4_a_corrected_name_is_found_and_the_wrong_one_no_more(store: Client) -> None:
    wrong = {"PatientName": "Wrong^Name", "PatientID": "W1", "Modality": "CT"}
    right = {"PatientName": "Right^Name", "PatientID": "R1", "Modality": "MR"}
    store.stored(dicom(instance="1", **wrong), dicom(instance="2", **wrong))
    for sop in ("1", "2"):
        store.delete(f"{SERIES}/instances/{sop}")
        store.stored(dicom(instance=sop, **right))
    assert names(store, "Right^Name") == ["1.2"]
    assert names(store, "Wrong^Name") == []
    assert uids(store.found("studies", PatientName="right", fuzzymatching="true")) == ["1.2"]
    assert store.found("instances", PatientID="W1") == []
    assert len(store.found("instances", PatientID="R1")) == 2
    (study,) = store.found("studies")
    (series,) = store.found("series")
    assert study["00100020"]["Value"] == ["R1"]
    assert series["00080060"]["Value"] == ["MR"]
    assert store.found("series", Modality="CT") == []
    assert len(store.found("series", Modality="MR")) == 1


def test_4_4_a_deleted_series_takes_its_patient_with_it(store: Client) -> None:
    store.stored(
        dicom(PatientName="Wrong^Name"),
        dicom(series="1.2.9", instance="9", PatientName="Right^Name"),
    )
    assert names(store, "Wrong^Name") == ["1.2"]
    store.delete(SERIES)
    assert names(store, "Wrong^Name") == []
    assert names(store, "Right^Name") == ["1.2"]


def test_4_4_a_study_that_was_emptied_and_filled_again_has_the_new_names(store: Client) -> None:
    store.stored(dicom(PatientName="Old^Name"))
    store.delete("studies/1.2")
    store.stored(dicom(PatientName="New^Name"))
    assert names(store, "Old^Name") == []
    assert names(store, "New^Name") == ["1.2"]


@pytest.mark.parametrize("again", ["again", "other"])
def test_nothing_of_a_deleted_store_is_in_a_new_one(store: Client, again: str) -> None:
    base = f"{store.dataset_url}/dicomStores"
    created = store.http.post(base, params={"dicomStoreId": "again"}).json()["name"]
    Client(store.url, created).stored(dicom(PatientName="Old^Store"))
    assert store.http.delete(f"{base}/again").json() == {}
    new = Client(store.url, store.http.post(base, params={"dicomStoreId": again}).json()["name"])
    stale = {"X-Fault": '{"kind": "stale"}'}
    assert new.http.get(f"{new.web}/studies", headers=stale).status_code == 204
    assert (
        new.http.get(f"{new.web}/studies?PatientName=Old^Store", headers=stale).status_code == 204
    )


def test_a_restart_forgets_deleted_instances(tmp_path: Path) -> None:
    with process(tmp_path) as (client, _):
        client.stored(dicom(), dicom("1.3", "1.3.1", "1.3.1.1"), dicom("1.3", "1.3.2", "1.3.2.1"))
        client.delete("studies/1.2")
        client.delete("studies/1.3/series/1.3.2")
    with process(tmp_path) as (client, _):
        assert uids(client.found("studies")) == ["1.3"]
        found = {
            table: rows(tmp_path, table) for table in ("studies", "series", "instances", "metadata")
        }
        assert found == {"studies": 1, "series": 1, "instances": 1, "metadata": 1}
        with sqlite3.connect(tmp_path / "index.sqlite") as db:
            assert db.execute("SELECT COUNT(DISTINCT study) FROM keys").fetchone() == (1,)
