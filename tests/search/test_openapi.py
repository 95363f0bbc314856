"""The description at /openapi.json is true for the running function."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.api.formats import FORMATS
from functions.search import attributes
from functions.search.refusals import STATUS
from tests.contract.strictbucket import strict_buckets
from tests.contract.topics import topic_server
from tests.search.kit import FakeStore, Function, function, real_store, study

DESCRIPTION = Path(__file__).parents[2] / "functions" / "search" / "web" / "openapi.json"
KNOWN = {
    "study": "1.2.1",
    "series": "1.2.1.1",
    "instance": "1.2.1.1.1",
    "frames": "1",
    "attribute": "7FE00010",
}


@pytest.fixture(scope="module")
def full(store: FakeStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function before the local DICOM store, with all that can be switched on."""
    folder = tmp_path_factory.mktemp("openapi")
    exports = "projects/local/topics/exports"
    with (
        topic_server(exports) as topics,
        strict_buckets("landing", "state") as buckets,
        real_store(folder / "store", study()) as endpoint,
    ):
        settings = {
            "SEARCH_EXPORTS": "true",
            "EXPORTS_TOPIC": exports,
            "EXPORT_DESTINATIONS": "gs://exports",
            "PUBSUB_EMULATOR_HOST": topics.address,
            "SEARCH_UPLOADS": "true",
            "LANDING_BUCKET": "landing",
            "STATE_BUCKET": "state",
            "STORAGE_EMULATOR_HOST": buckets.url,
        }
        with function(endpoint, folder, **settings) as running:
            yield running


def with_known_uids(document: Any) -> Any:
    """The description with what is in the store, so that most requests find something."""
    for name, value in KNOWN.items():
        document["components"]["parameters"][f"path_{name}"]["schema"] = {
            "type": "string",
            "enum": [value],
        }
    return document


@pytest.mark.parametrize("uids", ["any", "known"])
def test_schemathesis_finds_no_5xx_and_nothing_undocumented(
    full: Function, tmp_path: Path, uids: str
) -> None:
    document = full.send("/openapi.json").json()
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document if uids == "any" else with_known_uids(document)))
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program
    # What the description promises to take is less than what is taken: longer UIDs, other
    # alphabets.
    lenient = ["--exclude-checks", "negative_data_rejection"]
    # One worker: two that parse Python at once can break each other's parse on Python 3.11 (CPython
    # gh-106905).
    options = [
        *lenient,
        "--url",
        full.url,
        "--seed",
        "7",
        "--max-examples",
        "3",
        "--workers",
        "1",
        "--no-color",
    ]
    if uids == "known":
        options += [
            "--include-path-regex",
            r"\{study\}",
            "--phases",
            "examples,fuzzing",
            "--mode",
            "positive",
        ]
    done = subprocess.run(
        [program, "run", str(file), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Traceback" not in full.log()


def test_the_formats_of_an_export_are_those_that_the_export_function_takes(full: Function) -> None:
    document = json.loads(DESCRIPTION.read_text())
    offered = full.send("/config.json").json()["exports"]["formats"]
    described = document["components"]["schemas"]["Export"]["properties"]["format"]["enum"]
    assert list(offered) == described == list(FORMATS)


def test_every_way_to_refuse_is_described() -> None:
    document = json.loads(DESCRIPTION.read_text())
    reasons = document["components"]["schemas"]["Error"]["properties"]["error"]["properties"][
        "reason"
    ]["enum"]
    assert set(reasons) == set(STATUS)
    described = {code for path in document["paths"].values() for code in _responses(path)}
    assert {str(status) for status in STATUS.values()} <= described


def _responses(path: dict[str, Any]) -> set[str]:
    return {code for name in ("get", "post") for code in path.get(name, {}).get("responses", {})}


def test_every_key_is_described_and_every_reference_leads_somewhere() -> None:
    text = DESCRIPTION.read_text()
    document = json.loads(text)
    for level, keys in attributes.KEYS.items():
        named = {
            item["$ref"].rpartition("/")[2]
            for item in document["paths"][f"/{level}"]["get"]["parameters"]
        }
        assert set(keys) <= named
    for reference in re.findall(r'"#/components/([^"]+)"', text):
        kind, _, name = reference.partition("/")
        assert name in document["components"][kind]
