"""Runs the real terraform on infra/gcp: with the real providers if they are available, else with
schema-only ones."""

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GCP = ROOT / "infra" / "gcp"
PROJECT = "demo-project"
TIME_LIMIT_S = 540
_UNREAD = {"__pycache__", ".terraform", ".build", "tests", ".terraform.lock.hcl"}


class TerraformError(Exception):
    """terraform failed; the text is what it said."""


@functools.cache
def why_not() -> str:
    """Why the tests can not run here; empty when they can."""
    if not shutil.which("terraform"):
        return "there is no terraform here"
    folder = _stand_ins()
    if folder is None and os.environ.get("TERRAFORM_REGISTRY") != "1":
        return (
            "no providers: set TERRAFORM_REGISTRY=1 to download them, "
            "or TFSCHEMA_HOME to the schema-only ones"
        )
    return ""


def _stand_ins() -> Path | None:
    """The folder of the schema-only providers: TFSCHEMA_HOME, or shared/terraform beside a folder
    above this one."""
    homes = [Path(home) for home in [os.environ.get("TFSCHEMA_HOME", "")] if home]
    homes += [parent / "shared" / "terraform" for parent in ROOT.parents]
    return next((home for home in homes if (home / "env.sh").is_file()), None)


@functools.cache
def environment() -> dict[str, str]:
    """With which terraform finds its providers, and no credentials."""
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith(("TF_", "GOOGLE_", "CLOUDSDK_"))
    }
    variables |= {
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "TFSCHEMA_CHECKS": "1",
    }
    if folder := _stand_ins():
        done = subprocess.run(
            [folder / "env.sh"], capture_output=True, text=True, check=True, timeout=TIME_LIMIT_S
        )
        variables |= dict(re.findall(r"([A-Z_]+)='([^']*)'", done.stdout))
    return variables


def run(folder: Path, *arguments: str, **extra: str) -> str:
    """Run terraform in a folder.

    Raises:
        TerraformError: it failed.
    """
    command = ["terraform", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment(), **extra},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT_S,
    )
    if done.returncode:
        # Unwrapped, so that a sentence can be searched for.
        unframed = re.sub(r"[│╷╵]", " ", done.stdout + done.stderr)
        raise TerraformError(re.sub(r"\s+", " ", unframed))
    return done.stdout


@functools.cache
def workspace() -> Path:
    """A copy of what terraform reads, initialised, with its state on the disk and not in a
    bucket."""
    folder = Path(tempfile.mkdtemp(prefix="terraform-"))
    for name in ("main.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(
        ROOT / "functions", folder / "functions", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(
        GCP,
        folder / "infra" / "gcp",
        ignore=shutil.ignore_patterns(".terraform*", ".build", "*.tfvars"),
    )
    shutil.copy(ROOT / "infra" / "topology.json", folder / "infra" / "topology.json")
    gcp = folder / "infra" / "gcp"
    (gcp / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    run(gcp, "init", "-input=false", "-no-color")
    return gcp


@contextmanager
def applied(*targets: str, variables: dict[str, Any] | None = None) -> Iterator[Callable[..., str]]:
    """Pretend to have applied with these variables, on a state that is thrown away.

    Args:
        targets: only these resources and what they need; none: all.
        variables: besides the project.

    Yields:
        What plans them with other variables, and raises TerraformError when that is refused.
    """
    if _stand_ins() is None:
        pytest.skip("applying without an account takes the schema-only providers (TFSCHEMA_HOME)")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "variables.tfvars.json"
        arguments = [
            "-input=false",
            "-no-color",
            "-lock=false",
            f"-state={folder}/state",
            f"-var-file={file}",
        ]
        arguments += [f"-target={target}" for target in targets]

        def go(*command: str, **chosen: object) -> str:
            file.write_text(json.dumps({"project": PROJECT, **chosen}))
            return run(
                workspace(), *command, *arguments, TFSCHEMA_ALLOW_APPLY="1", TFSCHEMA_CHECKS="0"
            )

        go("apply", "-auto-approve", **(variables or {}))
        yield functools.partial(go, "plan")


def plan(**variables: object) -> "Plan":
    """What terraform would make with these variables. Skips the test where only real providers are:
    they want a login.

    Raises:
        TerraformError: it refused; the text says why.
    """
    if _stand_ins() is None:
        pytest.skip("planning without an account takes the schema-only providers (TFSCHEMA_HOME)")
    return _plan(json.dumps({"project": PROJECT, **variables}, sort_keys=True))


@functools.cache
def _plan(variables: str) -> "Plan":
    """From build/plans where this very plan was made before: both workers of a test run make it
    only once."""
    name = hashlib.sha256(f"{_contents()} {variables}".encode()).hexdigest()[:32]
    path = ROOT / "build" / "plans" / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(_planned(variables))
        partial.replace(path)
    return Plan(json.loads(path.read_text()))


@functools.cache
def _contents() -> str:
    """The hash of all that a plan follows from."""
    places = (GCP, ROOT / "functions")
    files = [
        p
        for place in places
        for p in place.rglob("*")
        if p.is_file() and not _UNREAD & set(p.relative_to(ROOT).parts)
    ]
    files += [ROOT / name for name in ("main.py", "requirements.txt", "infra/topology.json")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _planned(variables: str) -> str:
    gcp = workspace()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "variables.tfvars.json").write_text(variables)
        arguments = ("-input=false", "-no-color", "-lock=false", f"-out={path / 'plan'}")
        run(gcp, "plan", *arguments, f"-var-file={path / 'variables.tfvars.json'}")
        return run(gcp, "show", "-json", str(path / "plan"))


class Plan:
    """A plan, as `terraform show -json` has it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def resources(self, kind: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Address and values of each resource of a type, or of all."""
        for resource in _walk(self._data["planned_values"]["root_module"]):
            if resource["mode"] == "managed" and (not kind or resource["type"] == kind):
                yield resource["address"], resource["values"]

    def types(self) -> set[str]:
        """Every type of resource that is made."""
        return {
            r["type"]
            for r in _walk(self._data["planned_values"]["root_module"])
            if r["mode"] == "managed"
        }

    def by_name(self, kind: str) -> dict[str, dict[str, Any]]:
        """Those of a type by their own names."""
        return {values["name"]: values for _, values in self.resources(kind)}

    def output(self, name: str) -> Any:
        """An output that is known before apply."""
        return self._data["planned_values"]["outputs"][name].get("value")

    def dependencies(self, address: str) -> set[str]:
        """What a resource block of the root module waits for by name (`depends_on`)."""
        blocks = self._data["configuration"]["root_module"]["resources"]
        (found,) = (block for block in blocks if block["address"] == address)
        return set(found["depends_on"])

    def references(self, kind: str, attribute: str) -> dict[str, list[str]]:
        """For each resource block of a type, what an attribute (`a`, or `block.a`) refers to."""
        found = {}
        outer, _, inner = attribute.rpartition(".")
        for prefix, block in _blocks(self._data["configuration"]["root_module"]):
            if block["type"] == kind:
                expressions = (
                    block["expressions"].get(outer, [{}])[0] if outer else block["expressions"]
                )
                found[prefix + block["address"]] = expressions.get(inner, {}).get("references", [])
        return found


def _walk(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", ())
    for child in module.get("child_modules", ()):
        yield from _walk(child)


def _blocks(module: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for block in module.get("resources", ()):
        yield prefix, block
    for name, call in module.get("module_calls", {}).items():
        yield from _blocks(call["module"], f"{prefix}module.{name}.")
