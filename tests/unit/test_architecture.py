"""The rules of the house, read from the source."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted((ROOT / "functions").rglob("*.py"))
LOCAL = sorted((ROOT / "infra").rglob("*.py"))
CLI = sorted((ROOT / "cli").rglob("*.py"))
GROUND = {"checksum", "errors", "settings", "values", "log", "deadline", "resources", "jsonvalues"}
HANDLERS = {"store", "delete", "export", "search", "commands", "notify", "watch"}

# An outside library, and the modules below functions/ that may import it.
HOMES: dict[str, set[str]] = {
    "requests": {
        "common/clients/transport",
        "common/clients/storage_library",
        "notify/sender",  # never with the service's credentials
    },
    "urllib3": {"common/clients/transport", "notify/sender"},
    "google.auth": {
        "common/clients/credentials",
        "common/clients/pubsub",
        "common/clients/storage_library",
        "api/id_tokens",
    },
    "google.api_core": {"common/clients/pubsub", "common/clients/storage_library"},
    "google.cloud.storage": {"common/clients/storage_library"},
    "google.pubsub_v1": {"common/clients/pubsub"},
    "grpc": {"common/clients/pubsub"},
    "google.cloud.pubsub_v1": set(),
    "google_crc32c": {"common/checksum"},
    "python_multipart": {"common/dicom/multipart"},
    "flask": {"common/events/runtime", "common/web", "search/handler", "commands/handler"},
    "functions_framework": set(),
    "pydicom": {"common/dicom/part10"},
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def used(path: Path, attribute: str) -> bool:
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node).startswith(attribute)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def of_package(path: Path, *packages: str) -> bool:
    """Whether a file imports one of these packages, or anything in them."""
    return any(name.split(".")[0] in packages for name in imports(path))


def test_functions_and_the_local_stack_never_import_each_other_nor_the_command() -> None:
    for path in FUNCTIONS:
        assert not of_package(path, "infra", "cli"), path
    for path in LOCAL:
        assert not of_package(path, "functions", "cli", "main"), path


def test_the_command_imports_the_local_stack_only_where_it_starts_or_shows_it() -> None:
    importing = {path.stem for path in CLI if of_package(path, "infra")}
    assert importing <= {"run", "viewer", "upload"}


@pytest.mark.parametrize("library", ["google.cloud", "google.pubsub_v1", "google.auth", "requests"])
def test_the_command_makes_clients_of_a_library_in_one_place(library: str) -> None:
    # conformance is a separate program, which calls only one store.
    others = [path for path in CLI if path.parent.name != "conformance"]
    homes = {
        path.stem
        for path in others
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    assert homes == {"clients"}


def test_help_is_shown_without_any_client_library() -> None:
    code = "import cli.app, sys, json; cli.app.main(['--help']); print(json.dumps([*sys.modules]))"
    modules = json.loads(modules_after(code).splitlines()[-1])
    for name in ("google.cloud.storage", "google.pubsub_v1", "requests", "pydicom", "infra"):
        assert name not in modules


def modules_after(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_functions_never_import_each_other_and_shared_code_imports_none() -> None:
    for path in FUNCTIONS:
        home = path.parent.name
        others = tuple(f"functions.{name}" for name in HANDLERS if name != home)
        assert not any(name.startswith(others) for name in imports(path)), path


def test_the_common_package_does_not_know_requests() -> None:
    for path in (ROOT / "functions/common").rglob("*.py"):
        assert not any(name.startswith("functions.api") for name in imports(path)), path


def test_the_ground_floor_imports_only_the_ground_floor() -> None:
    for name in GROUND:
        for imported in imports(ROOT / f"functions/common/{name}.py"):
            if imported.startswith("functions.common."):
                assert imported.split(".")[2] in GROUND, (name, imported)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_each_outside_library_has_one_home(library: str) -> None:
    homes = {
        str(path.relative_to(ROOT / "functions").with_suffix(""))
        for path in FUNCTIONS
        if any(name == library or name.startswith(library + ".") for name in imports(path))
        # A type in an annotation is no use of the library.
        and not (
            (library == "requests" and not used(path, "requests."))
            or _only_annotates(path, library)
        )
    }
    assert homes <= HOMES[library]


def test_no_function_speaks_http_by_hand() -> None:
    by_hand = {"socket", "ssl", "http.client", "urllib.request"}
    assert not [path for path in FUNCTIONS if imports(path) & by_hand]


LINE = 34  # characters of code on an average line


@pytest.mark.parametrize(
    ("folder", "lines"), [("common/clients", 1_000), ("common", 2_700), ("api", 600)]
)
def test_what_functions_share_stays_small(folder: str, lines: int) -> None:
    paths = (ROOT / "functions" / folder).rglob("*.py")
    assert sum(map(code_characters, paths)) <= lines * LINE


def code_characters(path: Path) -> int:
    """Characters of code: without indentation, docstrings and whole-line comments."""
    lines = dict(enumerate(path.read_text().splitlines(), 1))
    for node in ast.walk(ast.parse(path.read_text())):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:  # type: ignore[arg-type]
            docstring = node.body[0]  # type: ignore[attr-defined]
            for number in range(docstring.lineno, docstring.end_lineno + 1):
                del lines[number]
    code = [line.strip() for line in lines.values()]
    return sum(len(line) for line in code if not line.startswith("#"))


@pytest.mark.parametrize(
    "package", [path.parent for path in FUNCTIONS if path.name == "__init__.py"], ids=str
)
def test_the_map_of_a_package_names_each_of_its_files(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    for path in package.glob("*.py"):
        assert path.name == "__init__.py" or re.search(rf"\b{path.name}\b", text), path


def test_the_locked_requirements_name_no_registry_and_no_numpy() -> None:
    for path in ROOT.glob("requirements*.txt"):
        assert "://" not in path.read_text(), path
        assert "--index-url" not in path.read_text(), path
    assert "numpy" not in (ROOT / "requirements.txt").read_text()


def _only_annotates(path: Path, library: str) -> bool:
    """Whether the module does nothing with the library but name its types in annotations."""
    tree = ast.parse(path.read_text())
    annotations = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if (annotation := getattr(node, field, None)) is not None:
                annotations |= {id(inner) for inner in ast.walk(annotation)}
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == library.split(".")[0]]
    return bool(uses) and all(id(node) in annotations for node in uses)


def test_only_settings_reads_the_environment_only_log_writes_only_deadline_keeps_time() -> None:
    for path in [*FUNCTIONS, ROOT / "main.py"]:
        names = imports(path)
        assert path.stem == "settings" or not ({"os", "os.environ", "os.getenv"} & names), path
        assert path.stem == "deadline" or "time" not in names, path
        assert path.stem == "log" or not ({"logging", "sys"} & names), path
        assert not any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
            for node in ast.walk(ast.parse(path.read_text()))
        ), path


def test_a_broad_except_stands_in_few_places_only() -> None:
    broad = []
    for path in FUNCTIONS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None
                or (
                    isinstance(node.type, ast.Name)
                    and node.type.id in ("Exception", "BaseException")
                )
            ):
                broad.append(path.stem)
    # `part10`: pydicom's errors; `web`: a server's errors; `replies`: a stream's.
    assert sorted(broad) == ["handler", "part10", "replies", "runtime", "web"]


@pytest.mark.parametrize(
    "path", [*FUNCTIONS, *LOCAL, *CLI, ROOT / "main.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_file_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert (
        sum(len(line.strip()) for line in text.splitlines()) <= 18_000
    )  # characters, so that nobody packs
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"
            if not node.name.startswith("_") and node.col_offset == 0:
                assert ast.get_docstring(node), f"{node.name} has no docstring"


ENVIRONMENT = {
    "DICOM_STORE": "projects/p/locations/l/datasets/d/dicomStores/s",
    "OUTCOMES_TOPIC": "projects/p/topics/outcomes",
    "UPLOADS_NEXT_TOPIC": "projects/p/topics/uploads-next",
    "DELETES_NEXT_TOPIC": "projects/p/topics/deletes-next",
    "EXPORTS_NEXT_TOPIC": "projects/p/topics/exports-next",
    "STATE_BUCKET": "state",
    "LANDING_BUCKET": "landing",
    "QUARANTINE_BUCKET": "quarantine",
    "EXPORT_DESTINATIONS": "gs://exports",
}


def loaded_by(function: str, environment: dict[str, str]) -> set[str]:
    code = f"import main, sys, json; main.{function}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_the_search_function_loads_neither_storage_nor_pubsub_nor_pydicom() -> None:
    modules = loaded_by("search", {**ENVIRONMENT, "SEARCH_UPLOADS": "true"})
    for name in (
        "google.cloud.storage",
        "google.cloud.pubsub",
        "google.pubsub_v1",
        "grpc",
        "pydicom",
        "numpy",
    ):
        assert not any(module == name or module.startswith(name + ".") for module in modules), name
    assert "functions.common.clients.storage" not in modules


@pytest.mark.parametrize("function", ["store_upload", "delete_resource", "export_resource"])
def test_the_event_functions_load_no_grpc_and_no_numpy(function: str) -> None:
    modules = loaded_by(function, ENVIRONMENT)
    assert f"functions.{function.split('_')[0]}" in modules
    for name in ("grpc", "google.pubsub_v1", "google.cloud.storage", "pydicom", "numpy"):
        assert name not in modules


def test_a_missing_setting_ends_the_process_with_one_line_that_names_it() -> None:
    environment = {"PATH": os.environ["PATH"], **ENVIRONMENT}
    del environment["QUARANTINE_BUCKET"]
    done = subprocess.run(
        [sys.executable, "-c", "import main; main.store_upload"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("store_upload: QUARANTINE_BUCKET is not set")
    assert len(done.stderr.splitlines()) == 1
