"""Stand-ins for gcloud, terraform and curl: they record how they were called and play a small cloud
in a folder.

STAND_INS is the folder; FAIL there is a JSON list of patterns of calls that are to fail, SAY an
object of patterns and what is to be answered instead.
"""

import base64
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

TOKEN: Final = "ya29.the-secret-token"
IDENTITY: Final = "eyJ.the-identity-token"
SEARCH_URL: Final = "https://dicom-search.a.run.app"
PROJECT_NUMBER: Final = "123456789012"
RESOURCES: Final = (
    ("google_healthcare_dataset.this[0]", "projects/p/locations/r/datasets/d"),
    (
        'google_project_iam_custom_role.roles["dicomStoreReader"]',
        "projects/p/roles/dicomStoreReader",
    ),
    ('google_storage_bucket.data["landing"]', "p-dicom-landing"),
    ("google_pubsub_topic.outcomes", "projects/p/topics/dicom-outcomes"),
)
SYSTEM: Final[dict[str, Any]] = {
    "environments": {"store_upload": {}, "delete_resource": {}, "search": {}},
    "search_ingress": "ALLOW_ALL",
}


class Cloud:
    """What is there, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def put(self, name: str, data: bytes = b"") -> None:
        (self.folder / name).write_bytes(data)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


def uid(data: bytes, tag: bytes) -> str:
    """A UID of a scan, by its tag as it is in the file."""
    found = re.search(re.escape(tag) + rb"UI(.)\x00([0-9.]+)", data, re.DOTALL)
    assert found
    return found[2].decode()


def gcloud(call: str, arguments: list[str], cloud: Cloud) -> tuple[int, str]:
    """What gcloud answers."""
    fixed = {
        "auth list": "me@example.org",
        "auth print-access-token": TOKEN,
        "auth print-identity-token": IDENTITY,
        "projects describe": PROJECT_NUMBER,
        "billing projects describe": "True",
        "services list": "\n".join(
            f"{name}.googleapis.com"
            for name in ("cloudresourcemanager", "iam", "serviceusage", "storage")
        ),
    }
    for beginning, answer in fixed.items():
        if call.startswith(beginning):
            return 0, answer
    match call.split()[:3]:
        case ["storage", "buckets", "create"]:
            cloud.put("state-bucket", json.dumps({"projectNumber": PROJECT_NUMBER}).encode())
        case ["storage", "cp", source]:
            cloud.put(arguments[3].rpartition("/")[2], Path(source).read_bytes())
            cloud.put("dropped", arguments[3].split("/", 3)[3].encode())
            cloud.remove("command")
        case ["storage", "cat", path]:
            found = [
                file.read_text().rstrip("\n")
                for file in sorted(cloud.folder.glob(path.rpartition("/")[2]))
            ]
            return (0, "\n".join(found)) if found else (1, "")
        case ["storage", "rm", path]:
            for file in cloud.folder.glob(path.rpartition("/")[2]):
                file.unlink()
        case ["pubsub", "topics", "publish"]:
            cloud.put("command", next(a for a in arguments if a.startswith("--message=")).encode())
        case ["pubsub", "subscriptions", "pull"]:
            return 0, json.dumps(
                [
                    {"ackId": "a", "message": {"data": base64.b64encode(o).decode()}}
                    for o in outcomes(cloud)
                ]
            )
    return 0, ""


def outcomes(cloud: Cloud) -> list[bytes]:
    """The outcomes of what happened so far, and one of somebody else."""
    records = [{"outcome": "rejected", "study": "1.2.3"}]
    if cloud.has("command"):
        command = json.loads(cloud.get("command").decode().partition("=")[2])
        records.append({"outcome": "deleted", "request_id": command["request_id"]})
    elif cloud.has("scan.dcm"):
        told = (
            {"outcome": "rejected", "reason": "unsupported_input"}
            if cloud.has("REJECT")
            else {"outcome": "stored"}
        )
        records.append({**told, "name": cloud.get("dropped").decode()})
    return [json.dumps(record).encode() for record in records]


def terraform(call: str, arguments: list[str], cloud: Cloud) -> tuple[int, str]:
    """What terraform answers."""
    command = re.sub(r"-chdir=\S+ ", "", call)
    if command == "version":
        return 0, "Terraform v1.11.4\non linux_amd64"
    if command.startswith("init"):
        lock = Path(arguments[0].removeprefix("-chdir="), ".terraform.lock.hcl")
        if not lock.exists():
            lock.write_text("# checksums of the first download\n")
    if command.startswith("plan"):
        chosen = re.search(r"-var=region=(\S+)", command)
        cloud.put("planned", (chosen[1] if chosen else "us-central1").encode())
        return (0 if cloud.has("applied") else 2), "the plan"
    if command.startswith("apply") and cloud.has("apply-error"):
        return 1, cloud.get("apply-error").decode()
    if command.startswith("apply"):
        cloud.put("applied")
        cloud.put("region", cloud.get("planned"))
        cloud.put("state", "\n".join(address for address, _ in RESOURCES).encode())
    if command.startswith("destroy"):
        cloud.remove("applied")
        cloud.put("state")
    if command.startswith("output"):
        outputs = {
            "search_url": SEARCH_URL,
            "landing_bucket": "p-dicom-landing",
            "system": json.dumps(SYSTEM),
        }
        name = command.split()[-1]
        return 0, outputs.get(name, f"<{name}>")
    return _state(command, cloud)


def _state(command: str, cloud: Cloud) -> tuple[int, str]:
    """What is in Terraform's state, a line with an address each."""
    addresses = cloud.get("state").decode().splitlines() if cloud.has("state") else []
    if command == "state list":
        return 0, "\n".join(addresses)
    if command == "state pull":
        there = any("bucket" in address for address in addresses)
        instances = (
            [{"attributes": {"location": cloud.get("region").decode().upper()}}] if there else []
        )
        bucket = {"type": "google_storage_bucket", "name": "data", "instances": instances}
        return 0, json.dumps({"resources": [bucket]}) if addresses else ""
    if command == "show -json":
        resources = [{"address": a, "values": {"id": i}} for a, i in RESOURCES if a in addresses]
        return 0, json.dumps({"values": {"root_module": {"resources": resources}}})
    if command.startswith("state rm "):
        cloud.put(
            "state",
            "\n".join(a for a in addresses if a != command.removeprefix("state rm ")).encode(),
        )
    if command.startswith("import "):
        cloud.put("state", "\n".join([*addresses, command.split()[-2]]).encode())
    return 0, ""


def curl(call: str, arguments: list[str], cloud: Cloud) -> tuple[int, str]:
    """What curl answers; without the right token in the header's file it fails."""
    headers = [Path(a[1:]).read_text() for a in arguments if a.startswith("@")]
    if "testIamPermissions" in call:
        asked = arguments[arguments.index("--data") + 1]
        return (0, asked) if f"Authorization: Bearer {TOKEN}\n" in headers else (22, "")
    if "googleapis.com" in call:
        assert f"Authorization: Bearer {TOKEN}\n" in headers
        return 0, _rest(arguments, cloud)
    if call.split()[-1].startswith(SEARCH_URL):
        found = [{"0020000D": {"Value": [uid(cloud.get("scan.dcm"), b"\x20\x00\x0d\x00")]}}]
        allowed = f"Authorization: Bearer {IDENTITY}\n" in headers
        return 0, f"{json.dumps(found)}\n200" if allowed else "\n403"
    return 6, ""


def _rest(arguments: list[str], cloud: Cloud) -> str:
    """A body and a status from Cloud Storage and Cloud Functions."""
    url = arguments[-1]
    name = url.rpartition("/")[2].partition("?")[0]
    if "/o/" in url or "/b/" in url:
        file = name if "/o/" in url else "state-bucket"
        return f"{cloud.get(file).decode()}\n200" if cloud.has(file) else "\n404"
    failed = json.loads(cloud.get("functions").decode()) if cloud.has("functions") else []
    if name == "functions":
        return f"{json.dumps({'functions': failed})}\n200"
    left = [function for function in failed if not function["name"].endswith(f"/{name}")]
    if "DELETE" in arguments:
        cloud.put("functions", json.dumps(left).encode())
    return "\n404" if left == failed else "{}\n200"


def main() -> None:
    """`stand_ins.py PROGRAM ARGUMENTS`."""
    program, arguments = sys.argv[1], sys.argv[2:]
    folder = Path(os.environ["STAND_INS"])
    call = " ".join(arguments)
    with (folder / "calls").open("a") as calls:
        line = {
            "call": f"{program} {call}",
            "token": os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN", ""),
        }
        calls.write(json.dumps(line) + "\n")
    for pattern, answer in json.loads((folder / "SAY").read_text()).items():
        if re.search(pattern, f"{program} {call}"):
            print(answer)
            return
    if any(
        re.search(pattern, f"{program} {call}")
        for pattern in json.loads((folder / "FAIL").read_text())
    ):
        print("the stand-in fails as it was told to", file=sys.stderr)
        sys.exit(1)
    status, answer = {"gcloud": gcloud, "terraform": terraform, "curl": curl}[program](
        call, arguments, Cloud(folder)
    )
    if answer:
        print(answer)
    sys.exit(status)


if __name__ == "__main__":
    main()
