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
    (
        'google_storage_bucket_iam_binding.convenience["landing roles/storage.legacyBucketOwner"]',
        "b/p-dicom-landing/roles/storage.legacyBucketOwner",
    ),
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


# What terraform says of an import at an address that the settings switch off.
NOT_NAMED: Final = "Error: Configuration for import target does not exist"

# A stand-in's exit status, and what it prints.
Answer = tuple[int, str]

ENABLED: Final = ("cloudresourcemanager", "iam", "serviceusage", "storage")
FIXED: Final = {
    "auth list": "me@example.org",
    "auth print-access-token": TOKEN,
    "auth print-identity-token": IDENTITY,
    "projects describe": PROJECT_NUMBER,
    "billing projects describe": "True",
    "services list": "\n".join(f"{name}.googleapis.com" for name in ENABLED),
}


def gcloud(call: str, arguments: list[str], cloud: Cloud) -> Answer:
    """What gcloud answers."""
    for beginning, answer in FIXED.items():
        if call.startswith(beginning):
            return 0, answer
    match call.split()[:3]:
        case ["storage", "buckets", "create"]:
            cloud.put("state-bucket", json.dumps({"projectNumber": PROJECT_NUMBER}).encode())
        case ["storage", "cp", source]:
            _copy(Path(source), arguments[3], cloud)
        case ["storage", "cat", pattern]:
            return _print(pattern, cloud)
        case ["storage", "ls", pattern]:
            bucket = pattern.rpartition("/")[0]
            return 0, "\n".join(f"{bucket}/{file.name}" for file in _files(pattern, cloud))
        case ["storage", "rm", *_]:
            for address in arguments[2:]:
                for file in _files(address, cloud):
                    file.unlink()
        case ["pubsub", "topics", "publish"]:
            message = next(a for a in arguments if a.startswith("--message="))
            cloud.put("command", message.removeprefix("--message=").encode())
        case ["pubsub", "subscriptions", "pull"]:
            return 0, json.dumps([_delivery(record) for record in _outcomes(cloud)])
    return 0, ""


def _copy(source: Path, address: str, cloud: Cloud) -> None:
    """Copy a file to gs://bucket/name, and forget what came of earlier ones."""
    name = address.split("/", 3)[3]
    cloud.put(name.rpartition("/")[2], source.read_bytes())
    cloud.put("dropped", name.encode())
    cloud.remove("command")


def _files(pattern: str, cloud: Cloud) -> list[Path]:
    return sorted(cloud.folder.glob(pattern.rpartition("/")[2]))


def _print(pattern: str, cloud: Cloud) -> Answer:
    found = [file.read_text().rstrip("\n") for file in _files(pattern, cloud)]
    if not found:
        return 1, ""
    return 0, "\n".join(found)


def _delivery(record: dict[str, str]) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(record).encode())
    return {"ackId": "a", "message": {"data": data.decode()}}


def _outcomes(cloud: Cloud) -> list[dict[str, str]]:
    """The outcomes of what happened so far, and one of somebody else."""
    others = {"outcome": "rejected", "study": "1.2.3"}
    if cloud.has("command"):
        command = json.loads(cloud.get("command"))
        return [others, {"outcome": "deleted", "request_id": command["request_id"]}]
    if not cloud.has("scan.dcm"):
        return [others]
    record = {"outcome": "stored", "name": cloud.get("dropped").decode()}
    if cloud.has("REJECT"):
        record |= {"outcome": "rejected", "reason": "unsupported_input"}
    return [others, record]


def terraform(call: str, arguments: list[str], cloud: Cloud) -> Answer:
    """What terraform answers."""
    command = re.sub(r"-chdir=\S+ ", "", call)
    match command.split()[0]:
        case "version":
            return 0, "Terraform v1.11.4\non linux_amd64"
        case "init":
            _lock(Path(arguments[0].removeprefix("-chdir="), ".terraform.lock.hcl"))
        case "plan":
            return _plan(command, cloud)
        case "apply":
            return _apply(cloud)
        case "destroy":
            cloud.remove("applied")
            cloud.put("state")
        case "output":
            return 0, _output(command.split()[-1])
        case "import":
            return _import(command, cloud)
        case "state" | "show":
            return 0, _state(command, cloud)
    return 0, ""


def _lock(file: Path) -> None:
    if not file.exists():
        file.write_text("# checksums of the first download\n")


def _plan(command: str, cloud: Cloud) -> Answer:
    """With -detailed-exitcode: 0 for no changes, 2 for some."""
    region = "us-central1"
    if chosen := re.search(r"-var=region=(\S+)", command):
        region = chosen[1]
    cloud.put("planned", region.encode())
    if cloud.has("applied"):
        return 0, "the plan"
    return 2, "the plan"


def _apply(cloud: Cloud) -> Answer:
    if cloud.has("apply-error"):
        return 1, cloud.get("apply-error").decode()
    cloud.put("applied")
    cloud.put("region", cloud.get("planned"))
    named = [address for address, _ in RESOURCES if address not in _unnamed(cloud)]
    cloud.put("state", "\n".join(named).encode())
    return 0, ""


def _unnamed(cloud: Cloud) -> list[str]:
    """The addresses that the settings switch off."""
    if not cloud.has("unnamed"):
        return []
    return cloud.get("unnamed").decode().splitlines()


def _output(name: str) -> str:
    outputs = {
        "search_url": SEARCH_URL,
        "landing_bucket": "p-dicom-landing",
        "system": json.dumps(SYSTEM),
    }
    return outputs.get(name, f"<{name}>")


def _state(command: str, cloud: Cloud) -> str:
    """What is in Terraform's state: a file with a line for each address."""
    addresses: list[str] = []
    if cloud.has("state"):
        addresses = cloud.get("state").decode().splitlines()
    match command.split():
        case ["state", "list"]:
            return "\n".join(addresses)
        case ["state", "pull"]:
            return _pulled(addresses, cloud)
        case ["show", "-json"]:
            known = [item for item in RESOURCES if item[0] in addresses]
            resources = [{"address": a, "values": {"id": i}} for a, i in known]
            return json.dumps({"values": {"root_module": {"resources": resources}}})
        case ["state", "rm", *_]:
            addresses.remove(command.removeprefix("state rm "))
            cloud.put("state", "\n".join(addresses).encode())
    return ""


def _import(command: str, cloud: Cloud) -> Answer:
    """Import a resource, if the settings name it."""
    address = command.split()[-2]
    if address in _unnamed(cloud):
        return 1, f"{NOT_NAMED}\n\nThe configuration for the given import {address} does not exist."
    addresses = cloud.get("state").decode().splitlines()
    cloud.put("state", "\n".join([*addresses, address]).encode())
    return 0, ""


def _pulled(addresses: list[str], cloud: Cloud) -> str:
    if not addresses:
        return ""
    instances = []
    if any("bucket" in address for address in addresses):
        location = cloud.get("region").decode().upper()
        instances = [{"attributes": {"location": location}}]
    bucket = {
        "type": "google_storage_bucket",
        "name": "data",
        "instances": instances,
    }
    return json.dumps({"resources": [bucket]})


def curl(call: str, arguments: list[str], cloud: Cloud) -> Answer:
    """What curl answers; the token is read from the file with the header."""
    headers = [Path(a[1:]).read_text() for a in arguments if a.startswith("@")]
    if "googleapis.com" in call:
        if f"Authorization: Bearer {TOKEN}\n" not in headers:
            return 22, ""
        return 0, _google(arguments, cloud)
    if not call.split()[-1].startswith(SEARCH_URL):
        return 6, ""
    if f"Authorization: Bearer {IDENTITY}\n" not in headers:
        return 0, "\n403"
    study = uid(cloud.get("scan.dcm"), b"\x20\x00\x0d\x00")
    return 0, f"{json.dumps([{'0020000D': {'Value': [study]}}])}\n200"


def _google(arguments: list[str], cloud: Cloud) -> str:
    """A body, and on a line of its own the status, as `--write-out` has it."""
    url = arguments[-1]
    name = url.rpartition("/")[2].partition("?")[0]
    if name.endswith(":testIamPermissions"):
        return arguments[arguments.index("--data") + 1]
    if "/o/" in url:
        return _object(name, cloud)
    if "/b/" in url:
        return _object("state-bucket", cloud)
    return _functions(name, "DELETE" in arguments, cloud)


def _object(name: str, cloud: Cloud) -> str:
    if not cloud.has(name):
        return "\n404"
    return f"{cloud.get(name).decode()}\n200"


def _functions(name: str, delete: bool, cloud: Cloud) -> str:
    """List the functions, or get or delete one."""
    known = []
    if cloud.has("functions"):
        known = json.loads(cloud.get("functions"))
    if name == "functions":
        return f"{json.dumps({'functions': known})}\n200"
    left = [function for function in known if not function["name"].endswith(f"/{name}")]
    if left == known:
        return "\n404"
    if delete:
        cloud.put("functions", json.dumps(left).encode())
    return "{}\n200"


def main() -> None:
    """`stand_ins.py PROGRAM ARGUMENTS`."""
    program = sys.argv[1]
    arguments = sys.argv[2:]
    folder = Path(os.environ["STAND_INS"])
    call = f"{program} {' '.join(arguments)}"
    with (folder / "calls").open("a") as calls:
        token = os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN", "")
        calls.write(json.dumps({"call": call, "token": token}) + "\n")
    status, answer = _answer(program, arguments, call, folder)
    if answer:
        print(answer)
    sys.exit(status)


def _answer(program: str, arguments: list[str], call: str, folder: Path) -> Answer:
    for pattern, answer in json.loads((folder / "SAY").read_text()).items():
        if re.search(pattern, call):
            return 0, answer
    if any(re.search(pattern, call) for pattern in json.loads((folder / "FAIL").read_text())):
        print("the stand-in fails as it was told to", file=sys.stderr)
        return 1, ""
    stand_in = {"gcloud": gcloud, "terraform": terraform, "curl": curl}[program]
    return stand_in(" ".join(arguments), arguments, Cloud(folder))


if __name__ == "__main__":
    main()
