"""A place to run deploy.sh: a copy of its files, and stand-ins for gcloud, terraform and curl."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.infra import stand_ins
from tests.infra.terraform import ROOT

PROJECT = "demo-project"
STATE = f"gs://{PROJECT}-dicom-functions-state"
# The programs that deploy.sh uses, besides python3 and the stand-ins.
USED = (
    "bash cat cp cut date dirname env grep head mkdir mktemp printf rm sed sleep sort tee tr true"
)


@dataclass
class Result:
    status: int
    text: str
    calls: list[str]

    def called(self, pattern: str) -> int:
        """How often a call was made."""
        return sum(1 for call in self.calls if re.search(pattern, call))

    def order(self, *patterns: str) -> list[int]:
        """Where in the run the first call of each kind was made."""
        return [
            next(i for i, call in enumerate(self.calls) if re.search(p, call)) for p in patterns
        ]


class Desk:
    """A copy of the repository's deployable part, and a PATH on which only stand-ins can be
    found."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.cloud = folder / "repository", folder / "bin", folder / "cloud"
        for place in (self.root, self.bin, self.cloud):
            place.mkdir()
        for name in ("deploy.sh", "main.py", "requirements.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("cli", "functions", "infra/gcp"):
            shutil.copytree(
                ROOT / name,
                self.root / name,
                ignore=shutil.ignore_patterns("__pycache__", ".terraform*"),
            )
        shutil.copy(ROOT / "infra/topology.json", self.root / "infra/topology.json")
        for name in USED.split():
            (self.bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        (self.bin / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
        for name in ("gcloud", "terraform", "curl"):
            stand_in = f'"{sys.executable}" -I -S "{ROOT}/tests/infra/stand_ins.py" {name}'
            (self.bin / name).write_text(f'#!/bin/sh\nexec {stand_in} "$@"\n')
        for name in ("python3", "gcloud", "terraform", "curl"):
            (self.bin / name).chmod(0o755)

    def settings(self, text: str) -> None:
        """Write terraform.tfvars."""
        (self.root / "infra/gcp/terraform.tfvars").write_text(text)

    def run(
        self,
        *arguments: str,
        fail: tuple[str, ...] = (),
        say: dict[str, str] | None = None,
        typed: str = "",
        limit_s: int = 20,
        more: dict[str, str] | None = None,
    ) -> Result:
        (self.cloud / "FAIL").write_text(json.dumps(fail))
        (self.cloud / "SAY").write_text(json.dumps(say or {}))
        (self.cloud / "calls").unlink(missing_ok=True)
        environment = {
            "PATH": str(self.bin),
            "STAND_INS": str(self.cloud),
            "TMPDIR": str(self.cloud.parent),
            "DEPLOY_POLL_S": "0.05",
            "DEPLOY_LIMIT_S": str(limit_s),
            "DEPLOY_SEARCH_LIMIT_S": "0",
            **(more or {}),
        }
        done = subprocess.run(
            ["bash", str(self.root / "deploy.sh"), *arguments],
            env=environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        lines = (
            (self.cloud / "calls").read_text().splitlines()
            if (self.cloud / "calls").exists()
            else []
        )
        result = Result(
            done.returncode, done.stdout + done.stderr, [json.loads(line)["call"] for line in lines]
        )
        for secret in (stand_ins.TOKEN, stand_ins.IDENTITY):
            assert secret not in result.text
            assert not any(secret in call for call in result.calls)
        assert "unbound variable" not in result.text
        return result


def deploy(desk: Desk, *arguments: str, **options: object) -> Result:
    """Run deploy.sh for the project."""
    return desk.run("--project", PROJECT, *arguments, **options)  # type: ignore[arg-type]
