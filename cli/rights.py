"""The doctor's checks of rights: may each account and each of Google's service agents do what it
has to do? The local system has no rights to check."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cli import needs
from cli.clients import Answer, Clients
from cli.errors import CliError
from cli.findings import Check, Finding, Look, Resource
from cli.needs import Need
from cli.system import LEDGER

_SEE_POLICIES: Final = "roles/iam.securityReviewer on the project"  # viewers may not read policies
_SEE_BUCKETS: Final = "roles/storage.bucketViewer on the project"
_SEE_DATASET: Final = "roles/healthcare.datasetViewer on the dataset"
_ENCRYPT: Final = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
_PUBLISH: Final = "roles/pubsub.publisher"
_SUBSCRIBE: Final = "roles/pubsub.subscriber"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_CREATOR: Final = "roles/iam.serviceAccountTokenCreator"  # noqa: S105
# Google's own accounts in the project, by the end of their email addresses.
PUBSUB_AGENT: Final = "@gcp-sa-pubsub."
STORAGE_AGENT: Final = "@gs-project-accounts."
HEALTHCARE_AGENT: Final = "@gcp-sa-healthcare."
_OWN_BUILD: Final = "dicom-build@"  # the build account that Terraform makes
_REPOSITORY: Final = "dicom-functions"


@dataclass(frozen=True)
class Grant:
    """A role that a member must have.

    Args:
        subject: its purpose.
        url: of the resource.
        role: the role.
        member: a part of the member's name.
        method: the HTTP method of the resource's `getIamPolicy`.
    """

    subject: str
    url: str
    role: str
    member: str
    method: str = "GET"


def permissions(clients: Clients) -> Iterator[Finding]:
    """Each function's account has the permissions that its code needs; tested as that account."""
    system = clients.system
    look = Look(clients, "permissions")
    if system.local:
        yield look.skipped("all functions", "the local system has no permissions")
        return
    acting: dict[str, Clients | Finding] = {}
    for need in needs.of(system):
        if need.function not in acting:
            acting[need.function] = _acting_as(look, need.function)
            refusal = acting[need.function]
            if isinstance(refusal, Finding):
                yield refusal
        account = acting[need.function]
        if isinstance(account, Clients):
            yield _tested(look, account, need)


def delivery(clients: Clients) -> Iterator[Finding]:
    """Cloud Storage may publish notifications. Pub/Sub may call each event function, sign those
    calls, write the ledger, and move dead letters."""
    if clients.system.local:
        return
    look = Look(clients, "delivery", _SEE_POLICIES)
    for grant in _delivery_grants(clients):
        yield _granted(look, grant)
    yield _writes_ledger(look)


def _delivery_grants(clients: Clients) -> Iterator[Grant]:
    system = clients.system
    pubsub = f"{system.endpoints.pubsub}/v1"
    yield Grant(
        subject="Cloud Storage publishes uploads",
        url=f"{pubsub}/{system.topic('uploads')}",
        role=_PUBLISH,
        member=STORAGE_AGENT,
    )
    called = [name.partition("/")[0] for name in system.bound if name != LEDGER]
    for function in dict.fromkeys(called):
        yield Grant(
            subject=f"Pub/Sub calls {function}",
            url=f"{system.endpoints.run}/v2/{system.service(function)}",
            role="roles/run.invoker",
            member=f"serviceAccount:{system.delivery}",
        )
    account = f"projects/{system.project}/serviceAccounts/{system.delivery}"
    yield Grant(
        subject="Pub/Sub signs its calls",
        url=f"{system.endpoints.iam}/v1/{account}",
        role=_TOKEN_CREATOR,
        member=PUBSUB_AGENT,
        method="POST",
    )
    for item in system.bound.values():
        topic = item["dead_letter_topic"]
        name = item.get("subscription") or item["name"]
        yield Grant(
            subject=f"dead letters to {topic}",
            url=f"{pubsub}/{system.topic(topic)}",
            role=_PUBLISH,
            member=PUBSUB_AGENT,
        )
        yield Grant(
            subject=f"dead letters from {name}",
            url=f"{pubsub}/{system.subscription(name)}",
            role=_SUBSCRIBE,
            member=PUBSUB_AGENT,
        )


def _writes_ledger(look: Look) -> Finding:
    """The role is a custom one, so any role of the agent on the bucket counts."""
    system = look.clients.system
    subject = "Pub/Sub writes the ledger"
    bucket = system.buckets[LEDGER]
    policy = look.fetch(f"{system.endpoints.storage}/storage/v1/b/{bucket}/iam", subject)
    if isinstance(policy, Finding):
        return policy
    for binding in _bindings(policy):
        if _names(binding, PUBSUB_AGENT):
            return look.ok(subject, str(binding.get("role")))
    return look.failed(subject, "it has no role on the bucket")


def encryption(clients: Clients) -> Iterator[Finding]:
    """With customer-managed keys (kms_key, dataset_kms_key): Google's service agents may use
    them."""
    system = clients.system
    if system.local:
        return
    look = Look(clients, "encryption", _SEE_BUCKETS)
    subject = "key of the buckets"
    url = f"{system.endpoints.storage}/storage/v1/b/{system.buckets['landing']}"
    found = look.fetch(url, subject)
    agents = {"Cloud Storage": STORAGE_AGENT, "Pub/Sub": PUBSUB_AGENT}
    key = _key(found, "encryption", "defaultKmsKeyName")
    yield from _used(look, subject, key, agents)
    look = Look(clients, "encryption", _SEE_DATASET)
    subject = "key of the dataset"
    found = look.fetch(f"{system.endpoints.healthcare}/{system.store.dataset}", subject)
    agents = {"the Healthcare API": HEALTHCARE_AGENT}
    key = _key(found, "encryptionSpec", "kmsKeyName")
    yield from _used(look, subject, key, agents)


def _key(resource: Resource | Finding, part: str, name: str) -> str | Finding:
    """The name of a resource's key, empty without one; or why it is not known."""
    if isinstance(resource, Finding):
        return resource
    found = resource.get(part)
    if not isinstance(found, Mapping):
        return ""
    return str(found.get(name, ""))


def _used(
    look: Look, subject: str, key: str | Finding, agents: Mapping[str, str]
) -> Iterator[Finding]:
    """Whether each agent may use a key."""
    if isinstance(key, Finding):
        yield key
        return
    if not key:
        yield look.ok(subject, "is Google's own")
        return
    policies = Look(look.clients, look.check, _SEE_POLICIES)
    for name, member in agents.items():
        grant = Grant(
            subject=f"{name} uses the {subject}",
            url=f"{look.clients.system.endpoints.kms}/v1/{key}",
            role=_ENCRYPT,
            member=member,
        )
        yield _granted(policies, grant)


def build(clients: Clients) -> Iterator[Finding]:
    """The account that builds the functions may read their source and write their images."""
    system = clients.system
    if system.local or not system.build:
        return
    look = Look(clients, "build", _SEE_POLICIES)
    member = f"serviceAccount:{system.build}"
    place = f"projects/{system.project}/locations/{system.region}"
    repository = Grant(
        subject="writes images",
        url=f"{system.endpoints.artifacts}/v1/{place}/repositories/{_REPOSITORY}",
        role="roles/artifactregistry.writer",
        member=member,
    )
    yield _granted(look, repository)
    if not system.build.startswith(_OWN_BUILD):
        return  # the operator's own account: its rights on the project are not managed here
    for role in ("roles/logging.logWriter", "roles/storage.objectViewer"):
        project = Grant(
            subject=role,
            url=f"{system.endpoints.projects}/v1/projects/{system.project}",
            role=role,
            member=member,
            method="POST",
        )
        yield _granted(look, project)


RIGHTS: Final[tuple[Check, ...]] = (permissions, delivery, encryption, build)


def _acting_as(look: Look, function: str) -> Clients | Finding:
    """The clients with the rights of a function's account, or why there are none."""
    system = look.clients.system
    account = system.accounts[function]
    accounts = f"{system.endpoints.credentials}/v1/projects/-/serviceAccounts"
    url = f"{accounts}/{account}:generateAccessToken"
    body = {"scope": [_SCOPE], "lifetime": "300s"}
    try:
        answer = look.clients.call("POST", url, body)
    except CliError as error:
        return look.failed(function, "no answer", str(error))
    if answer.status == 200:
        return Clients(system, answer.json["accessToken"])
    if answer.status == 404:
        return look.failed(function, f"the account {account} does not exist")
    command = (
        f"gcloud iam service-accounts add-iam-policy-binding {account}"
        f" --project={system.project} --member=user:YOU --role={_TOKEN_CREATOR}"
    )
    fix = f"you need {_TOKEN_CREATOR} on it: {command}"
    return look.skipped(function, "you may not act as its account", fix)


def _tested(look: Look, account: Clients, need: Need) -> Finding:
    _, _, name = need.resource.rpartition("/")
    subject = f"{need.function} on {need.kind} {name}"
    try:
        answer = _permissions_of(account, need)
    except CliError as error:
        return look.failed(subject, "no answer", str(error))
    if answer.status not in (200, 401, 403):
        return look.failed(subject, f"the service answered {answer.status}")
    allowed = answer.object.get("permissions", [])
    lacking = [permission for permission in need.permissions if permission not in allowed]
    if lacking:
        return look.failed(subject, f"missing: {', '.join(lacking)}")
    return look.ok(subject, ", ".join(need.permissions))


def _permissions_of(account: Clients, need: Need) -> Answer:
    """Which of the needed permissions the account has."""
    endpoints = account.system.endpoints
    wanted = {"permissions": list(need.permissions)}
    if need.kind == "bucket":
        bucket = f"{endpoints.storage}/storage/v1/b/{need.resource}"
        return account.call("GET", f"{bucket}/iam/testPermissions", params=wanted)
    base = endpoints.healthcare
    if need.kind == "topic":
        base = f"{endpoints.pubsub}/v1"
    if need.kind == "secret":
        base = f"{endpoints.secrets}/v1"
    url = f"{base}/{need.resource}:testIamPermissions"
    return account.call("POST", url, wanted)


def _granted(look: Look, grant: Grant) -> Finding:
    """Whether a member has a role."""
    policy = look.fetch(f"{grant.url}:getIamPolicy", grant.subject, grant.method)
    if isinstance(policy, Finding):
        return policy
    for binding in _bindings(policy):
        if binding.get("role") == grant.role and _names(binding, grant.member):
            return look.ok(grant.subject, grant.role)
    return look.failed(grant.subject, f"{grant.role} is missing")


def _bindings(policy: Any) -> list[dict[str, Any]]:
    found = policy.get("bindings", [])
    return [one for one in found if isinstance(one, dict)]


def _names(binding: dict[str, Any], member: str) -> bool:
    return any(member in str(one) for one in binding.get("members", []))
