"""The tables of grants in the documents, made from plans. Run it to write the tables again."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra import terraform
from tests.infra.chosen import PAGE, WORKFLOWS
from tests.infra.terraform import ROOT, Plan

_BEGIN = "<!-- rights -->\n"
_END = "<!-- end of rights -->\n"
# The attribute that says what a right is on, by type of resource.
_ON = {
    "google_artifact_registry_repository_iam_member": "repository",
    "google_cloud_run_v2_service_iam_member": "name",
    "google_healthcare_dataset_iam_member": "dataset_id",
    "google_healthcare_dicom_store_iam_member": "dicom_store_id",
    "google_project_iam_member": "project",
    "google_pubsub_subscription_iam_member": "subscription",
    "google_pubsub_topic_iam_member": "topic",
    "google_service_account_iam_member": "service_account_id",
    "google_storage_bucket_iam_member": "bucket",
    "google_kms_crypto_key_iam_member": "crypto_key_id",
    "google_secret_manager_secret_iam_member": "secret_id",
}
_KINDS = {
    "cloud_run_v2_service": "function",
    "healthcare_dataset": "dataset",
    "healthcare_dicom_store": "DICOM store",
    "pubsub_subscription": "subscription",
    "pubsub_topic": "topic",
    "secret_manager_secret": "secret",
    "storage_bucket": "bucket",
}


@dataclass(frozen=True)
class Table:
    """A table of rights in a document.

    Args:
        document: that has it.
        added_by: the variables whose grants it has; None: the grants of the defaults.
    """

    document: Path
    added_by: Mapping[str, Any] | None = None

    def made(self) -> str:
        """As it follows from the plans."""
        defaults = rights(terraform.plan())
        if self.added_by is None:
            return _markdown(defaults)
        return _markdown([r for r in rights(terraform.plan(**self.added_by)) if r not in defaults])

    def in_document(self) -> str:
        """As the document has it."""
        return self.document.read_text().partition(_BEGIN)[2].partition(_END)[0]

    def write(self) -> None:
        """Write it again."""
        head, _, rest = self.document.read_text().partition(_BEGIN)
        tail = rest.partition(_END)[2]
        self.document.write_text(head + _BEGIN + self.made() + _END + tail)


TABLES = (
    Table(ROOT / "docs" / "permissions.md"),
    Table(ROOT / "docs" / "webhooks.md", WORKFLOWS),
    Table(ROOT / "docs" / "search.md", PAGE),
)


Right = tuple[str, str, str, tuple[str, ...]]


def _markdown(found: list[Right]) -> str:
    rows = ["| account | on | may |", "|---|---|---|"]
    for account, kind, name, allowed in sorted(found):
        rows.append(f"| `{account}` | {kind} `{name}` | {', '.join(f'`{a}`' for a in allowed)} |")
    return "\n".join(rows) + "\n"


def permissions(plan: Plan) -> dict[str, set[str]]:
    """What each account may, wherever."""
    found: dict[str, set[str]] = defaultdict(set)
    for account, _, _, allowed in rights(plan):
        found[account].update(allowed)
    return found


def rights(plan: Plan) -> list[Right]:
    """Account, kind and name of the resource, and permissions (or the predefined role)."""
    custom = {
        address.split('"')[1]: tuple(sorted(values["permissions"]))
        for address, values in plan.resources("google_project_iam_custom_role")
    }
    found = []
    for resource_type in plan.types():
        if resource_type not in _ON:
            assert not resource_type.endswith("_iam_member"), resource_type
            continue
        kind = resource_type.removeprefix("google_").removesuffix("_iam_member")
        for address, values in plan.resources(resource_type):
            name = values.get(_ON[resource_type]) or _name_of(address)
            role = values["role"]
            allowed = custom.get(role.rpartition("/")[2], (role,))
            kind_text = _KINDS.get(kind, kind.replace("_", " "))
            name = _short(name) + _folder(values)
            found.append((_account(values["member"]), kind_text, name, allowed))
    return [*found, *_convenience(plan)]


def _convenience(plan: Plan) -> list[Right]:
    """The rest of the bindings that Cloud Storage adds to a new bucket."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for _, values in plan.resources("google_storage_bucket_iam_binding"):
        for member in values["members"]:
            kind = member.partition(":")[0]
            assert kind == "projectOwner", kind
            found["project owners", _short(values["bucket"])].append(values["role"])
    return [
        (account, "bucket", bucket, tuple(sorted(roles)))
        for (account, bucket), roles in found.items()
    ]


def _folder(values: dict[str, Any]) -> str:
    """The folder of a bucket that a condition restricts the right to, such as `/pairs/`."""
    for condition in values.get("condition") or ():
        if found := re.search(r'/objects(/[^"]+)"', condition["expression"]):
            return found[1]
    return ""


def _name_of(address: str) -> str:
    """For names that only the cloud knows."""
    return "dicom-functions" if "repository" in address else "dicom-delivery"


def _short(name: str) -> str:
    return name.removeprefix(f"{terraform.PROJECT}-").replace(terraform.PROJECT, "PROJECT")


def _account(member: str) -> str:
    email = member.partition(":")[2]
    agent = re.fullmatch(r"service-\d+@(gcp-sa-|gs-)([a-z-]+)\.iam\.gserviceaccount\.com", email)
    if agent:
        return {
            "pubsub": "Pub/Sub",
            "project-accounts": "Cloud Storage",
            "healthcare": "Healthcare",
        }[agent[2]]
    return email.partition("@")[0]


def main() -> None:
    """Write the tables again."""
    for table in TABLES:
        table.write()


if __name__ == "__main__":
    main()
