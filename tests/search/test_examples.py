"""The examples in Python run against the function, with a scan that comes with pydicom."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
from pydicom.data import get_testdata_file

from tests.search.kit import Function, function, real_store

ROOT = Path(__file__).parents[2]
LOCAL_URL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function before a store with the study of the patient 4MR1."""
    folder = tmp_path_factory.mktemp("examples")
    scan = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()
    with real_store(folder / "store", [scan]) as endpoint, function(endpoint, folder) as running:
        yield running


def run(code: str) -> None:
    exec(compile(code, "example", "exec"), {})


def test_the_notebooks_cells_run(search: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("agg")
    monkeypatch.setenv("SEARCH_URL", search.url)
    notebook = json.loads((ROOT / "examples/search.ipynb").read_text())
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    run("\n".join("".join(source) for source in cells))


def test_the_local_examples_of_the_page_on_python_run(search: Function) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    local = [block for block in blocks if LOCAL_URL in block and "pandas" not in block]
    assert len(local) == 2
    for block in local:
        run(block.replace(LOCAL_URL, search.url))
