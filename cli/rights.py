"""The doctor's checks of rights: may each account, and each of Google's service agents, do what it
must? A system on this machine has no rights."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cli import needs
from cli.clients import Clients
from cli.errors import CliError
from cli.findings import REDEPLOY, Check, Finding, fetch
from cli.needs import Need
from cli.system import LEDGER

_SEE_POLICIES: Final = "roles/iam.securityReviewer on the project"  # a viewer sees no policies
_SEE_BUCKETS: Final = "roles/storage.bucketViewer on the project"
_SEE_DATASET: Final = "roles/healthcare.datasetViewer on the dataset"
_ENCRYPT: Final = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_CREATOR: Final = "roles/iam.serviceAccountTokenCreator"  # noqa: S105
# Google's own accounts in the project, by the end of their email addresses.
PUBSUB_AGENT: Final = "@gcp-sa-pubsub."
STORAGE_AGENT: Final = "@gs-project-accounts."
HEALTHCARE_AGENT: Final = "@gcp-sa-healthcare."
_OWN_BUILD: Final = "dicom-build@"  # the build account that Terraform makes
_REPOSITORY: Final = "dicom-functions"


def permissions(clients: Clients) -> Iterator[Finding]:
    """Each function's account may do what its code needs, asked in the account's own name."""
    system = clients.system
    if system.local:
        detail = "there are no rights on this machine"
        yield Finding("permissions", "all functions", "skipped", detail)
        return
    acting: dict[str, Clients | Finding] = {}
    for need in needs.of(system):
        if need.function not in acting:
            acting[need.function] = _acting_as(clients, need.function)
            refusal = acting[need.function]
            if isinstance(refusal, Finding):
                yield refusal
        account = acting[need.function]
        if isinstance(account, Clients):
            yield _tested(account, need)


def delivery(clients: Clients) -> Iterator[Finding]:
    """Cloud Storage may notify; Pub/Sub may call each event function, sign for it, write the
    ledger, and move what it gives up."""
    system = clients.system
    if system.local:
        return
    pubsub, storage = system.endpoints.pubsub, system.endpoints.storage
    publisher, subscriber = "roles/pubsub.publisher", "roles/pubsub.subscriber"
    yield _granted(
        clients,
        f"{pubsub}/v1/{system.topic('uploads')}",
        publisher,
        STORAGE_AGENT,
        "Cloud Storage notifies of uploads",
    )
    for function in system.topology["functions"]:
        yield _granted(
            clients,
            f"{system.endpoints.run}/v2/{system.service(function)}",
            "roles/run.invoker",
            f"serviceAccount:{system.delivery}",
            f"Pub/Sub calls {function}",
        )
    account = f"projects/{system.project}/serviceAccounts/{system.delivery}"
    yield _granted(
        clients,
        f"{system.endpoints.iam}/v1/{account}",
        _TOKEN_CREATOR,
        PUBSUB_AGENT,
        "Pub/Sub signs its calls",
        method="POST",
    )
    for item in system.bound.values():
        topic, name = item["dead_letter_topic"], item.get("subscription") or item.get("name")
        yield _granted(
            clients,
            f"{pubsub}/v1/{system.topic(topic)}",
            publisher,
            PUBSUB_AGENT,
            f"moves to {topic}",
        )
        yield _granted(
            clients,
            f"{pubsub}/v1/{system.subscription(str(name))}",
            subscriber,
            PUBSUB_AGENT,
            f"moves from {name}",
        )
    yield _writes_ledger(clients, f"{storage}/storage/v1/b/{system.buckets[LEDGER]}/iam")


def encryption(clients: Clients) -> Iterator[Finding]:
    """With keys of one's own (kms_key, dataset_kms_key): Google's service agents may use them."""
    system = clients.system
    if system.local:
        return
    bucket = f"{system.endpoints.storage}/storage/v1/b/{system.buckets['landing']}"
    found = fetch(clients, bucket, "encryption", "key of the buckets", _SEE_BUCKETS)
    key = _key(found, "encryption", "defaultKmsKeyName")
    agents = {"Cloud Storage": STORAGE_AGENT, "Pub/Sub": PUBSUB_AGENT}
    yield from _keys(clients, "key of the buckets", found, key, agents)
    dataset = f"{system.endpoints.healthcare}/{system.store.dataset}"
    found = fetch(clients, dataset, "encryption", "key of the dataset", _SEE_DATASET)
    key = _key(found, "encryptionSpec", "kmsKeyName")
    agents = {"the Healthcare API": HEALTHCARE_AGENT}
    yield from _keys(clients, "key of the dataset", found, key, agents)


def _key(resource: Mapping[str, Any] | Finding, part: str, name: str) -> str:
    found = resource.get(part) if isinstance(resource, Mapping) else None
    return str(found.get(name, "")) if isinstance(found, Mapping) else ""


def _keys(
    clients: Clients,
    subject: str,
    resource: Mapping[str, Any] | Finding,
    key: str,
    agents: Mapping[str, str],
) -> Iterator[Finding]:
    """Whether each agent may use the key of a resource, where it has one."""
    if isinstance(resource, Finding):
        yield resource
        return
    if not key:
        yield Finding("encryption", subject, "ok", "is Google's own")
        return
    for name, member in agents.items():
        yield _granted(
            clients,
            f"{clients.system.endpoints.kms}/v1/{key}",
            _ENCRYPT,
            member,
            f"{name} uses the {subject}",
            check="encryption",
        )


def build(clients: Clients) -> Iterator[Finding]:
    """The account that builds the functions may read their source and write their images."""
    system = clients.system
    if system.local or not system.build:
        return
    member = f"serviceAccount:{system.build}"
    place = f"projects/{system.project}/locations/{system.region}/repositories/{_REPOSITORY}"
    yield _granted(
        clients,
        f"{system.endpoints.artifacts}/v1/{place}",
        "roles/artifactregistry.writer",
        member,
        "writes images",
        check="build",
    )
    if not system.build.startswith(_OWN_BUILD):
        return  # an account of yours: its rights on the project are yours to give
    url = f"{system.endpoints.projects}/v1/projects/{system.project}"
    for role in ("roles/logging.logWriter", "roles/storage.objectViewer"):
        yield _granted(clients, url, role, member, role, check="build", method="POST")


RIGHTS: Final[tuple[Check, ...]] = (permissions, delivery, encryption, build)


def _acting_as(clients: Clients, function: str) -> Clients | Finding:
    system = clients.system
    account = system.accounts[function]
    base = f"{system.endpoints.credentials}/v1/projects/-/serviceAccounts/{account}"
    body = {"scope": [_SCOPE], "lifetime": "300s"}
    try:
        answer = clients.call("POST", f"{base}:generateAccessToken", body)
    except CliError as error:
        return Finding("permissions", function, "failed", "no answer", str(error))
    if answer.status == 200:
        return Clients(system, answer.json["accessToken"])
    if answer.status == 404:
        detail = f"the account {account} does not exist"
        return Finding("permissions", function, "failed", detail, REDEPLOY)
    fix = (
        f"you need {_TOKEN_CREATOR} on it: gcloud iam service-accounts add-iam-policy-binding "
        f"{account} --project={system.project} --member=user:YOU --role={_TOKEN_CREATOR}"
    )
    return Finding("permissions", function, "skipped", "you may not act as its account", fix)


def _tested(account: Clients, need: Need) -> Finding:
    endpoints = account.system.endpoints
    subject = f"{need.function} on {need.kind} {need.resource.rpartition('/')[2]}"
    wanted = list(need.permissions)
    try:
        if need.kind == "bucket":
            url = f"{endpoints.storage}/storage/v1/b/{need.resource}/iam/testPermissions"
            answer = account.call("GET", url, params={"permissions": wanted})
        else:
            base = f"{endpoints.pubsub}/v1" if need.kind == "topic" else endpoints.healthcare
            url = f"{base}/{need.resource}:testIamPermissions"
            answer = account.call("POST", url, {"permissions": wanted})
    except CliError as error:
        return Finding("permissions", subject, "failed", "no answer", str(error))
    if answer.status not in (200, 401, 403):
        detail = f"the service answered {answer.status}"
        return Finding("permissions", subject, "failed", detail, REDEPLOY)
    allowed = answer.json.get("permissions", []) if answer.status == 200 else []
    lacking = [permission for permission in wanted if permission not in allowed]
    if lacking:
        return Finding("permissions", subject, "failed", f"lacks {', '.join(lacking)}", REDEPLOY)
    return Finding("permissions", subject, "ok", ", ".join(wanted))


def _granted(
    clients: Clients,
    url: str,
    role: str,
    member: str,
    subject: str,
    *,
    check: str = "delivery",
    method: str = "GET",
) -> Finding:
    """Whether a member has a role on a resource.

    Args:
        url: of the resource.
        member: a part of the member's name.
        method: that its `getIamPolicy` takes.
    """
    policy = fetch(clients, f"{url}:getIamPolicy", check, subject, _SEE_POLICIES, method)
    if isinstance(policy, Finding):
        return policy
    for binding in _bindings(policy):
        if binding.get("role") == role and _names(binding, member):
            return Finding(check, subject, "ok", role)
    return Finding(check, subject, "failed", f"{role} is missing", REDEPLOY)


def _writes_ledger(clients: Clients, url: str) -> Finding:
    """The role is a custom one: any that the agent has on the bucket counts."""
    subject = "Pub/Sub writes the ledger"
    policy = fetch(clients, url, "delivery", subject, _SEE_POLICIES)
    if isinstance(policy, Finding):
        return policy
    for binding in _bindings(policy):
        if _names(binding, PUBSUB_AGENT):
            return Finding("delivery", subject, "ok", str(binding.get("role")))
    return Finding("delivery", subject, "failed", "it has no role on the bucket", REDEPLOY)


def _bindings(policy: Any) -> list[dict[str, Any]]:
    found = policy.get("bindings", [])
    return [one for one in found if isinstance(one, dict)]


def _names(binding: dict[str, Any], member: str) -> bool:
    return any(member in str(one) for one in binding.get("members", []))
