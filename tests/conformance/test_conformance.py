"""The probe for the real service, against the local DICOM store."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli.conformance import run as _every_question  # noqa: F401 - puts them on the list
from cli.conformance.question import QUESTIONS
from infra.local.dicomstore import choices
from tests.dicomstore.kit import Client, dicom, process, uids

ROOT = Path(__file__).parents[2]
DATASET = "projects/their-project/locations/there/datasets/their-data"
OTHER = f"{DATASET}/dicomStores/theirs"
TOKEN = "probe"
# What the service always has and the local store only with options: callers with credentials,
# operations that take a moment, buckets.
AS_THE_SERVICE = ("--token", TOKEN, "--operation-s", "0.5", "--storage", "http://127.0.0.1:9")
# Values of `choices.Options` that do not depend on the service.
NO_BEHAVIOUR = {"tokens", "read_tokens", "pubsub_host", "storage_url"}


def command(url: str, *more: str) -> list[str]:
    start = [sys.executable, "-m", "cli", "conformance", DATASET]
    return [*start, "--endpoint", url, "--token", TOKEN, *more]


@dataclass
class Done:
    """A run of the probe: what it left, and its end."""

    status: int
    output: str
    progress: str
    report: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    theirs: list[str] = field(default_factory=list)

    def verdicts(self) -> dict[str, str]:
        return {row["question"]: row["verdict"] for row in self.report["rows"]}


def stores(client: Client) -> list[str]:
    """The names of the dataset's DICOM stores."""
    found = client.http.get(f"{client.url}/v1/{DATASET}/dicomStores", timeout=30).json()
    return [store["name"] for store in found.get("dicomStores", [])]


def authorized(client: Client) -> Client:
    client.http.headers["Authorization"] = f"Bearer {TOKEN}"
    return client


def asked(folder: Path, *flags: str, only: Sequence[str] = ()) -> Done:
    """Run the probe in a dataset that has another store with a study.

    flags are more of the local store's, only the names of the questions, all when empty.
    """
    chosen = [word for name in only for word in ("--only", name)]
    with process(folder, *AS_THE_SERVICE, "--store", OTHER, *flags) as (started, _):
        client = authorized(Client(started.url, OTHER))
        client.stored(dicom("1.2.3"))
        client.http.delete(f"{client.url}/_requests", timeout=30)
        path = folder / "report.json"
        ended = subprocess.run(
            command(client.url, "--yes", "--report", str(path), *chosen),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert path.exists(), ended.stderr
        return Done(
            status=ended.returncode,
            output=ended.stdout,
            progress=ended.stderr,
            report=json.loads(path.read_text()),
            requests=client.http.get(f"{client.url}/_requests", timeout=30).json()["recent"],
            stores=stores(client),
            theirs=uids(client.found("studies")),
        )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The probe's run against a local store that is as the service is."""
    return asked(tmp_path_factory.mktemp("conformance"))


def test_every_answer_of_the_local_store_is_the_assumed_one(done: Done) -> None:
    others = [row for row in done.report["rows"] if row["verdict"] != "same"]
    assert others == []
    assert done.status == 0


def test_every_question_was_asked(done: Done) -> None:
    assert sorted(done.verdicts()) == sorted(question.name for question in QUESTIONS)


def test_its_store_is_deleted_at_the_end(done: Done) -> None:
    assert done.stores == [OTHER]


def test_only_its_own_store_is_read_or_deleted(done: Done) -> None:
    own = r"/dicomStores/conformance-[0-9a-f-]+(-missing)?(:|/dicomWeb/|$)"
    making = r"/dicomStores\?dicomStoreId=conformance-"
    listing = r"/dicomStores\?filter=labels\.conformance%3Dconformance-[0-9a-f-]+&"
    operation = r"/operations/\d+$"
    below = re.escape(DATASET) + f"(?:{own}|{making}|{listing}|{operation})"
    elsewhere = re.escape(DATASET.rpartition("/")[0]) + f"/conformance-[0-9a-f-]+(?:{own}|{making})"
    allowed = re.compile(f"/v1/(?:{below}|{elsewhere})")
    paths = [request["path"] for request in done.requests]
    assert len(paths) > len(QUESTIONS)
    assert [path for path in paths if not allowed.match(path)] == []
    assert done.theirs == ["1.2.3"]


def test_the_report_names_no_project(done: Done) -> None:
    text = json.dumps(done.report)
    assert "their-project" not in text
    assert "their-data" not in text


def test_the_table_has_a_line_for_each_question(done: Done) -> None:
    lines = [line for line in done.output.splitlines() if line.startswith("same ")]
    assert len(lines) == len(QUESTIONS)
    assert done.output.splitlines()[-1] == f"{len(QUESTIONS)} questions: {len(QUESTIONS)} same"


def test_progress_is_on_standard_error(done: Done) -> None:
    assert f"{len(QUESTIONS)}/{len(QUESTIONS)}  " in done.progress


def test_another_answer_is_shown_as_different(tmp_path: Path) -> None:
    names = ("search_after_delete", "same_bytes_again")
    done = asked(tmp_path, "--stale-s", "2", only=names)
    assert done.verdicts() == {"search_after_delete": "different", "same_bytes_again": "same"}
    assert done.status == 1
    assert 'found:   "after ' in done.output


# What goes wrong


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Client]:
    with process(tmp_path / "store", *AS_THE_SERVICE) as (client, _):
        yield authorized(client)


METRICS = ("--only", "metrics_after_store", "--only", "metrics_of_what_is_missing")


def ran(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


def test_without_confirmation_nothing_is_made(local: Client) -> None:
    ended = ran(*command(local.url))
    assert ended.returncode == 2
    assert "use --yes" in ended.stderr
    requests = local.http.get(f"{local.url}/_requests", timeout=30).json()["recent"]
    assert requests == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_store_is_deleted_when_it_is_stopped(local: Client, number: int) -> None:
    running = subprocess.Popen(
        command(local.url, "--yes"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    with running:
        assert running.stderr
        while "/" not in running.stderr.readline():
            assert running.poll() is None
        assert len(stores(local)) == 1
        running.send_signal(number)
        assert "deleted conformance-" in running.stderr.read()
    assert running.returncode == 2
    assert stores(local) == []


def test_a_failed_question_does_not_stop_the_others(local: Client) -> None:
    local.fault(kind="reset", method="GET", path="getStudyMetrics", when="before")
    ended = ran(*command(local.url, "--yes", "--json", *METRICS, "--only", "same_bytes_again"))
    rows = json.loads(ended.stdout)["rows"]
    assert {row["question"]: row["verdict"] for row in rows} == {
        "same_bytes_again": "same",
        "metrics_after_store": "failed",
        "metrics_of_what_is_missing": "failed",
    }
    assert ended.returncode == 1
    assert stores(local) == []


def test_a_busy_service_is_asked_again(local: Client) -> None:
    local.fault(
        kind="status",
        status=429,
        method="GET",
        path="getStudyMetrics",
        count=1,
    )
    ended = ran(*command(local.url, "--yes", *METRICS))
    assert ended.stdout.endswith("2 questions: 2 same\n")


def test_a_refusal_to_make_the_store_is_reported(local: Client) -> None:
    local.fault(kind="status", status=403, method="POST", path="dicomStoreId")
    ended = ran(*command(local.url, "--yes"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the DICOM store cannot be made (status 403)")
    assert "roles/healthcare.dicomStoreAdmin" in ended.stderr


def test_a_store_that_cannot_be_deleted_is_named(local: Client) -> None:
    local.fault(kind="status", status=400, method="DELETE", path=r"dicomStores/[^/]+$")
    ended = ran(*command(local.url, "--yes", *METRICS))
    assert ended.returncode == 2
    left = stores(local)[0].rpartition("/")[2]
    assert f"gcloud healthcare dicom-stores delete {left}" in ended.stderr


@pytest.mark.parametrize(
    "endpoint", ["http://healthcare.example.org", "ftp://127.0.0.1", "nothing"]
)
def test_credentials_are_not_sent_over_a_network_unencrypted(endpoint: str) -> None:
    ended = ran(*command(endpoint, "--yes"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert TOKEN not in ended.stderr


def test_an_endpoint_that_does_not_answer() -> None:
    start = time.monotonic()
    ended = ran(*command("http://127.0.0.1:9", "--yes"))
    assert ended.returncode == 2
    assert "http://127.0.0.1:9 does not answer" in ended.stderr
    assert time.monotonic() - start < 60


def test_an_unknown_question_is_named(local: Client) -> None:
    ended = ran(*command(local.url, "--yes", "--only", "the_weather"))
    assert ended.returncode == 2
    assert ended.stderr == "error: there is no question named the_weather\n"


def test_a_dataset_needs_its_full_name() -> None:
    ended = ran(sys.executable, "-m", "cli", "conformance", "their-data", "--yes")
    assert ended.returncode == 2
    assert "projects/P/locations/L/datasets/D" in ended.stderr


# The list of questions


def test_every_choice_has_a_question() -> None:
    constants = {name for name in vars(choices) if name.isupper()}
    options = set(choices.Options.__dataclass_fields__) - NO_BEHAVIOUR
    named = {choice for question in QUESTIONS for choice in question.choices}
    assert named == constants | options


def test_no_two_questions_share_a_name_or_a_text() -> None:
    names = [question.name for question in QUESTIONS]
    texts = [question.text for question in QUESTIONS]
    assert len(set(names)) == len(names)
    assert len(set(texts)) == len(texts)
    assert all(texts)


def test_the_probe_is_an_independent_reading_of_the_service() -> None:
    for path in sorted((ROOT / "cli" / "conformance").glob("*.py")):
        imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
        own = [name for name in imported if name.split(".")[0] in ("functions", "infra", "main")]
        assert own == [], path.name
