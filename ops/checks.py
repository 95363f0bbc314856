"""The checks that look without touching: what is there, and whether it is as the topology and the
code want it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from functions.common.clients.credentials import Credentials
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError, SettingsError
from functions.common.settings import Settings
from ops import needs
from ops.needs import Need
from ops.subscription import EMPTY_PULLS
from ops.system import Client, System

Status = Literal["ok", "failed", "skipped"]
CALL_S: Final = 30.0  # for each check
_REDEPLOY: Final = "./deploy.sh puts it back"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: which kind of thing, such as `bucket`.
        subject: its name.
        detail: what is so or not so.
        mend: what to do about it; empty when it is ok.
    """

    check: str
    subject: str
    status: Status
    detail: str = ""
    mend: str = ""


Check = Callable[[System, Client], Iterator[Finding]]


def buckets(system: System, client: Client) -> Iterator[Finding]:
    """Each bucket is there, uniform and not public."""
    for role, name in system.buckets.items():
        found = _fetch(client, f"{system.endpoints.storage}/storage/v1/b/{name}", "bucket", name)
        if isinstance(found, Finding):
            yield found
            continue
        rules = found.get("iamConfiguration", {})
        uniform = rules.get("uniformBucketLevelAccess", {}).get("enabled") is True
        private = rules.get("publicAccessPrevention") == "enforced"
        if system.local or (uniform and private):
            yield Finding("bucket", name, "ok", role)
        else:
            wrong = "is not uniform" if not uniform else "could be made public"
            yield Finding("bucket", name, "failed", f"the {role} bucket {wrong}", _REDEPLOY)


def notification(system: System, client: Client) -> Iterator[Finding]:
    """The landing bucket tells the uploads topic of each new object."""
    bucket, topic = system.buckets["landing"], system.topic("uploads")
    if system.local:
        yield Finding(
            "notification",
            bucket,
            "skipped",
            "the local bucket server has none to ask for: the probe tells",
        )
        return
    found = _fetch(
        client,
        f"{system.endpoints.storage}/storage/v1/b/{bucket}/notificationConfigs",
        "notification",
        bucket,
    )
    if isinstance(found, Finding):
        yield found
        return
    for item in found.get("items", []):
        right = item.get("payload_format") == "JSON_API_V1" and "OBJECT_FINALIZE" in item.get(
            "event_types", []
        )
        if right and item.get("topic", "").endswith(topic) and not item.get("object_name_prefix"):
            yield Finding("notification", bucket, "ok", f"to {topic}")
            return
    yield Finding(
        "notification",
        bucket,
        "failed",
        f"does not notify {topic}: uploads are not seen",
        _REDEPLOY,
    )


def topics(system: System, client: Client) -> Iterator[Finding]:
    """Each topic is there, those of dead letters too."""
    names = [
        *system.topology["topics"].values(),
        *(item["dead_letter_topic"] for item in system.bound.values()),
    ]
    for name in names:
        found = _fetch(client, f"{system.endpoints.pubsub}/v1/{system.topic(name)}", "topic", name)
        yield found if isinstance(found, Finding) else Finding("topic", name, "ok")


def subscriptions(system: System, client: Client) -> Iterator[Finding]:
    """Each subscription is bound, delivers and gives up as the topology says, and never expires."""
    for item in system.bound.values():
        name = item.get("subscription") or item["name"]
        found = _fetch(
            client,
            f"{system.endpoints.pubsub}/v1/{system.subscription(name)}",
            "subscription",
            name,
        )
        if isinstance(found, Finding):
            yield found
            continue
        wrong = [
            *_binding(system, item, found),
            *([] if system.local else _numbers(system, item, found)),
        ]
        if wrong:
            yield Finding("subscription", name, "failed", "; ".join(wrong), _REDEPLOY)
        else:
            yield Finding(
                "subscription", name, "ok", f"dead letters to {item['dead_letter_topic']}"
            )


def dead_letters(system: System, client: Client) -> Iterator[Finding]:
    """Each subscription for dead letters is there and empty."""
    for key, item in system.bound.items():
        name, whose = item["dead_letter_subscription"], key.partition("/")[0]
        url = f"{system.endpoints.pubsub}/v1/{system.subscription(name)}"
        found = _fetch(client, url, "dead letters", name)
        if isinstance(found, Finding):
            yield found
        elif not found.get("topic", "").endswith(f"/{item['dead_letter_topic']}"):
            yield Finding(
                "dead letters",
                name,
                "failed",
                "is bound to another topic: they are lost",
                _REDEPLOY,
            )
        else:
            mend = f"see the log for why; then python -m ops replay dead-letters --function {whose}"
            yield _held(client, url, name, mend)


def functions(system: System, client: Client) -> Iterator[Finding]:
    """Each function is deployed, active, and has settings that it can start with."""
    for name, environment in system.environments.items():
        try:
            Settings.load(name, {key: value for key, value in environment.items() if key.isupper()})
        except SettingsError as error:
            yield Finding(
                "function",
                name,
                "failed",
                str(error),
                "set it (README.md, Settings) and deploy again",
            )
            continue
        if system.local:
            yield Finding("function", name, "ok", "settings are whole")
            continue
        full = system.service(name).replace("/services/", "/functions/")
        found = _fetch(client, f"{system.endpoints.functions}/v2/{full}", "function", name)
        if isinstance(found, Finding):
            yield found
        elif found.get("state") != "ACTIVE":
            yield Finding(
                "function",
                name,
                "failed",
                f"is {found.get('state', 'unknown')}",
                f"see its build log; {_REDEPLOY}",
            )
        else:
            yield Finding("function", name, "ok", "active, settings are whole")


def store(system: System, client: Client) -> Iterator[Finding]:
    """The DICOM store answers a search."""
    url = f"{system.endpoints.healthcare}/{system.store.name}/dicomWeb/studies"
    name = system.store.name.rpartition("/")[2]
    try:
        status, _ = client.get(url, Deadline(CALL_S), [("limit", "1")])
    except RetryableError as error:
        yield _refused("DICOM store", name, error)
        return
    if status in (200, 204):
        yield Finding("DICOM store", name, "ok", "answers searches")
    else:
        yield Finding(
            "DICOM store",
            name,
            "failed",
            f"answers {status}",
            f"is {system.store.name} the right name?",
        )


def permissions(system: System, _: Client) -> Iterator[Finding]:
    """Each function's account may do what its code needs, asked in the account's own name."""
    if system.local:
        yield Finding(
            "permissions", "all functions", "skipped", "there are no rights on this machine"
        )
        return
    clients: dict[str, Client | Finding] = {}
    for need in needs.of(system):
        if need.function not in clients:
            clients[need.function] = _acting_as(system, need.function)
            if isinstance(refusal := clients[need.function], Finding):
                yield refusal
        acting = clients[need.function]
        if isinstance(acting, Client):
            yield _tested(system, acting, need)


def delivery(system: System, client: Client) -> Iterator[Finding]:
    """Pub/Sub may call each event function, and may move what it gives up."""
    if system.local:
        return
    for function, item in system.topology["functions"].items():
        member = f"serviceAccount:{system.delivery}"
        url = f"{system.endpoints.run}/v2/{system.service(function)}:getIamPolicy"
        yield _has_role(client, url, "roles/run.invoker", member, ("delivery", f"calls {function}"))
        yield from _moves_dead_letters(system, client, item)
        yield from _moves_dead_letters(system, client, item["follow_ups"])


def _moves_dead_letters(
    system: System, client: Client, item: Mapping[str, Any]
) -> Iterator[Finding]:
    topic, subscription = item["dead_letter_topic"], item["subscription"]
    url = f"{system.endpoints.pubsub}/v1/{system.topic(topic)}:getIamPolicy"
    subject = ("delivery", f"moves to {topic}")
    yield _has_role(client, url, "roles/pubsub.publisher", "@gcp-sa-pubsub.", subject)
    url = f"{system.endpoints.pubsub}/v1/{system.subscription(subscription)}:getIamPolicy"
    subject = ("delivery", f"moves from {subscription}")
    yield _has_role(client, url, "roles/pubsub.subscriber", "@gcp-sa-pubsub.", subject)


LOOKING: Final[tuple[Check, ...]] = (
    buckets, notification, topics, subscriptions, dead_letters, functions, store, permissions, delivery,
)  # fmt: skip


class _Acting(Credentials):
    """A token of the account that is looked into."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def add_to(self, headers: dict[str, str], url: str) -> None:
        """Add the token, whatever the URL: where to is the system's own file's word."""
        assert url
        headers["Authorization"] = f"Bearer {self._token}"


def _fetch(
    client: Client, url: str, check: str, subject: str, role: str = "roles/viewer"
) -> Mapping[str, Any] | Finding:
    """The resource, or why it can not be had; `role` is what it takes."""
    try:
        status, found = client.get(url, Deadline(CALL_S))
    except RetryableError as error:
        return _refused(check, subject, error, role)
    if status == 404:
        return Finding(check, subject, "failed", "does not exist", _REDEPLOY)
    if status != 200 or not isinstance(found, dict):
        return Finding(
            check, subject, "failed", f"the service answered {status}", "try again in a minute"
        )
    return found


def _refused(
    check: str, subject: str, error: RetryableError, role: str = "roles/viewer"
) -> Finding:
    if error.reason == "unauthorized":
        mend = f"gcloud auth application-default login; you need the right to see it ({role})"
        return Finding(check, subject, "failed", "you may not see it", mend)
    return Finding(
        check,
        subject,
        "failed",
        f"no answer ({error.reason})",
        "is it running, and can it be reached from here?",
    )


def _binding(system: System, item: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with what the subscription joins."""
    if found.get("topic") != system.topic(item["topic"]):
        yield f"is bound to {found.get('topic')}"
    if found.get("deadLetterPolicy", {}).get("deadLetterTopic") != system.topic(
        item["dead_letter_topic"]
    ):
        yield "has no dead letters"
    if "bucket" in item:
        storage = found.get("cloudStorageConfig", {})
        if storage.get("bucket") != system.buckets[item["bucket"]]:
            yield "does not write to the ledger"
        if storage.get("state", "ACTIVE") != "ACTIVE":
            yield f"can not write to the ledger ({storage['state']})"
        return
    endpoint = found.get("pushConfig", {}).get("pushEndpoint", "")
    path = system.topology["follow_ups_path"]
    is_follow_ups = item["topic"].endswith("_next")
    if not endpoint:
        yield "calls no function"
    elif endpoint.endswith(path) != is_follow_ups:
        yield f"calls {urlsplit(endpoint).path or '/'} of the function"


def _numbers(system: System, item: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with how it delivers."""
    delivery, retry = system.topology["delivery"], found.get("retryPolicy", {})
    wanted = {
        "attempts": (
            found.get("deadLetterPolicy", {}).get("maxDeliveryAttempts"),
            item["max_delivery_attempts"],
        ),
        "ack deadline": (found.get("ackDeadlineSeconds"), delivery["ack_deadline_s"]),
        "least back-off": (retry.get("minimumBackoff"), f"{delivery['minimum_backoff_s']}s"),
        "most back-off": (retry.get("maximumBackoff"), f"{delivery['maximum_backoff_s']}s"),
        "retention": (found.get("messageRetentionDuration"), f"{delivery['retention_s']}s"),
    }
    for what, (is_, should) in wanted.items():
        if is_ != should:
            yield f"{what} is {is_} and not {should}"
    if found.get("expirationPolicy", {}).get("ttl"):
        yield "expires"
    push = found.get("pushConfig")
    if push and push.get("oidcToken", {}).get("serviceAccountEmail") != system.delivery:
        yield "calls the function without its account's token"


def _held(client: Client, url: str, name: str, mend: str) -> Finding:
    """Whether there are any: they are looked at and left where they are."""
    for _ in range(EMPTY_PULLS):
        try:
            status, found = client.post(
                f"{url}:pull", {"maxMessages": 1, "returnImmediately": True}, Deadline(CALL_S)
            )
            if status != 200:
                return Finding(
                    "dead letters",
                    name,
                    "failed",
                    f"Pub/Sub answered {status}",
                    "try again in a minute",
                )
            if messages := found.get("receivedMessages"):
                body = {"ackIds": [messages[0]["ackId"]], "ackDeadlineSeconds": 0}
                client.post(f"{url}:modifyAckDeadline", body, Deadline(CALL_S))
                return Finding(
                    "dead letters", name, "failed", "holds messages that were given up", mend
                )
        except RetryableError as error:
            return _refused("dead letters", name, error, "roles/pubsub.subscriber")
    return Finding("dead letters", name, "ok", "empty")


def _acting_as(system: System, function: str) -> Client | Finding:
    account = system.accounts[function]
    url = f"{system.endpoints.credentials}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
    try:
        status, found = Client().post(
            url,
            {"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "300s"},
            Deadline(CALL_S),
        )
    except RetryableError as error:
        if error.reason != "unauthorized":
            return _refused("permissions", function, error)
        status, found = 403, {}
    if status == 200:
        return Client(_Acting(found["accessToken"]))
    mend = (
        f"gcloud iam service-accounts add-iam-policy-binding {account} --member=user:YOU "
        "--role=roles/iam.serviceAccountTokenCreator"
    )
    if status == 404:
        return Finding(
            "permissions", function, "failed", f"the account {account} does not exist", _REDEPLOY
        )
    return Finding(
        "permissions", function, "skipped", "you may not act as its account to ask", mend
    )


def _tested(system: System, client: Client, need: Need) -> Finding:
    subject = f"{need.function} on {need.kind} {need.resource.rpartition('/')[2]}"
    try:
        if need.kind == "bucket":
            url = f"{system.endpoints.storage}/storage/v1/b/{need.resource}/iam/testPermissions"
            status, found = client.get(
                url, Deadline(CALL_S), [("permissions", p) for p in need.permissions]
            )
        else:
            base = (
                f"{system.endpoints.pubsub}/v1"
                if need.kind == "topic"
                else system.endpoints.healthcare
            )
            url = f"{base}/{need.resource}:testIamPermissions"
            status, found = client.post(
                url, {"permissions": list(need.permissions)}, Deadline(CALL_S)
            )
    except RetryableError as error:
        if error.reason != "unauthorized":
            return _refused("permissions", subject, error)
        status, found = 200, {}
    if status != 200:
        return Finding(
            "permissions", subject, "failed", f"the service answered {status}", _REDEPLOY
        )
    lacking = [p for p in need.permissions if p not in found.get("permissions", [])]
    if lacking:
        return Finding("permissions", subject, "failed", f"lacks {', '.join(lacking)}", _REDEPLOY)
    return Finding("permissions", subject, "ok", ", ".join(need.permissions))


def _has_role(
    client: Client, url: str, role: str, member: str, subject: tuple[str, str]
) -> Finding:
    found = _fetch(client, url, *subject, "roles/iam.securityReviewer")  # a viewer sees no policies
    if isinstance(found, Finding):
        return found
    for binding in found.get("bindings", []):
        if binding.get("role") == role and any(member in one for one in binding.get("members", [])):
            return Finding(*subject, "ok", role)
    return Finding(*subject, "failed", f"{role} is missing", _REDEPLOY)
