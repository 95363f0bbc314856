"""The description at /openapi.json is true for the running function."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from functions.api.formats import FORMATS
from functions.api.requests import DELETE_KEYS, EXPORT_KEYS
from functions.commands.refusals import STATUS
from tests.commands.conftest import Place


def described(commands: Place) -> Any:
    return commands.get("/openapi.json").json()


def test_every_way_to_refuse_is_described(commands: Place) -> None:
    document = described(commands)
    error = document["components"]["schemas"]["Error"]["properties"]["error"]
    assert set(error["properties"]["reason"]["enum"]) == set(STATUS)
    answers = {
        int(code)
        for path in document["paths"].values()
        for operation in path.values()
        for code in operation["responses"]
    }
    assert set(STATUS.values()) <= answers


def test_the_keys_and_formats_are_those_that_the_functions_take(commands: Place) -> None:
    schemas = described(commands)["components"]["schemas"]
    assert schemas["Export"]["properties"].keys() == EXPORT_KEYS.keys()
    assert schemas["Delete"]["properties"].keys() == DELETE_KEYS.keys()
    assert schemas["Export"]["properties"]["format"]["enum"] == list(FORMATS)


def test_schemathesis_finds_no_5xx_and_nothing_undocumented(
    commands: Place, tmp_path: Path
) -> None:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(described(commands)))
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program
    options = ["--url", commands.function.url, "--seed", "7", "--max-examples", "10"]
    # Described requests may still be refused: a store, a query or a destination that is not
    # allowed. More is accepted than described: attributes by tag, other destinations.
    lenient = ["--exclude-checks", "negative_data_rejection,positive_data_acceptance"]
    # Two workers that parse Python at once can break each other (CPython gh-106905).
    more = ["--workers", "1", "--no-color", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(
        [program, "run", str(file), *options, *lenient, *more],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Traceback" not in commands.function.log()
