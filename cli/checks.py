"""The doctor's checks that change nothing: does each resource exist, and does it match the topology
and the code?"""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cli.clients import Clients
from cli.dead_letters import EMPTY_PULLS, give_back, take
from cli.errors import CliError
from cli.findings import REDEPLOY, RETRY, Check, Finding, Look, Resource
from cli.system import LEDGER, System
from cli.webhooks import webhooks
from functions.common.dicom import dicomjson
from functions.common.errors import SettingsError
from functions.common.settings import Settings

_SEE_BUCKETS: Final = "roles/storage.bucketViewer on the project"
_SEE_PUBSUB: Final = "roles/pubsub.viewer on the project"
_PULL: Final = "roles/pubsub.subscriber on the project"
_SEE_FUNCTIONS: Final = "roles/cloudfunctions.viewer on the project"
_SEARCH: Final = "roles/healthcare.dicomViewer on the DICOM store"


def buckets(clients: Clients) -> Iterator[Finding]:
    """Each bucket exists, is uniform and not public."""
    system = clients.system
    look = Look(clients, "bucket", _SEE_BUCKETS)
    for role, name in system.buckets.items():
        url = f"{system.endpoints.storage}/storage/v1/b/{name}"
        found = look.fetch(url, name)
        if isinstance(found, Finding):
            yield found
            continue
        wrong = _exposed(found.get("iamConfiguration", {}))
        if wrong and not system.local:
            yield look.failed(name, f"the {role} bucket {wrong}")
        else:
            yield look.ok(name, role)


def _exposed(rules: Resource) -> str:
    """What could expose a bucket's contents; empty when nothing does."""
    uniform = rules.get("uniformBucketLevelAccess", {})
    if uniform.get("enabled") is not True:
        return "has no uniform bucket-level access"
    if rules.get("publicAccessPrevention") != "enforced":
        return "has no public access prevention"
    return ""


def notification(clients: Clients) -> Iterator[Finding]:
    """The landing bucket notifies the uploads topic of each new object."""
    system = clients.system
    bucket = system.buckets["landing"]
    topic = system.topic("uploads")
    look = Look(clients, "notification", _SEE_BUCKETS)
    if system.local:
        yield look.skipped(bucket, "not in the local system; the probe tests uploads")
        return
    url = f"{system.endpoints.storage}/storage/v1/b/{bucket}/notificationConfigs"
    found = look.fetch(url, bucket)
    if isinstance(found, Finding):
        yield found
        return
    notifies = [item for item in found.get("items", []) if _notifies(item, topic)]
    if notifies:
        yield look.ok(bucket, f"to {topic}")
    else:
        yield look.failed(bucket, f"does not notify {topic}: uploads are not processed")


def _notifies(item: Resource, topic: str) -> bool:
    return (
        item.get("payload_format") == "JSON_API_V1"
        and "OBJECT_FINALIZE" in item.get("event_types", [])
        and str(item.get("topic", "")).endswith(topic)
        and not item.get("object_name_prefix")
    )


def topics(clients: Clients) -> Iterator[Finding]:
    """Each topic exists, those for dead letters too."""
    system = clients.system
    look = Look(clients, "topic", _SEE_PUBSUB)
    names = list(system.topology["topics"].values())
    for item in system.bound.values():
        names += [item["topic"], item["dead_letter_topic"]]
    for name in dict.fromkeys(system.topic(name).rpartition("/")[2] for name in names):
        url = f"{system.endpoints.pubsub}/v1/{system.topic(name)}"
        found = look.fetch(url, name)
        if isinstance(found, Finding):
            yield found
        else:
            yield look.ok(name)


def subscriptions(clients: Clients) -> Iterator[Finding]:
    """Each subscription has the topology's binding, delivery and dead-letter policy, and never
    expires."""
    system = clients.system
    look = Look(clients, "subscription", _SEE_PUBSUB)
    for item in system.bound.values():
        name = item.get("subscription") or item["name"]
        url = f"{system.endpoints.pubsub}/v1/{system.subscription(name)}"
        found = look.fetch(url, name)
        if isinstance(found, Finding):
            yield found
            continue
        wrong = list(_binding(system, item, found))
        if not system.local:
            wrong += _numbers(system, item, found)
        if wrong:
            yield look.failed(name, "; ".join(wrong))
        else:
            yield look.ok(name, f"dead letters to {item['dead_letter_topic']}")


def dead_letters(clients: Clients) -> Iterator[Finding]:
    """Each subscription for dead letters exists and is empty."""
    system = clients.system
    look = Look(clients, "dead letters", _SEE_PUBSUB)
    for function, item in system.bound.items():
        name = item["dead_letter_subscription"]
        url = f"{system.endpoints.pubsub}/v1/{system.subscription(name)}"
        found = look.fetch(url, name)
        if isinstance(found, Finding):
            yield found
        elif not found.get("topic", "").endswith(f"/{item['dead_letter_topic']}"):
            yield look.failed(name, "is bound to another topic: dead letters are lost")
        else:
            yield _held(clients, name, function)


def functions(clients: Clients) -> Iterator[Finding]:
    """Each function is deployed, active, and has valid settings."""
    system = clients.system
    look = Look(clients, "function", _SEE_FUNCTIONS)
    for name, environment in system.environments.items():
        given = {key: value for key, value in environment.items() if key.isupper()}
        try:
            Settings.load(name, given)
        except SettingsError as error:
            fix = "set it (docs/settings.md) and deploy again"
            yield look.failed(name, str(error), fix)
            continue
        if system.local:
            yield look.ok(name, "settings are valid")
        else:
            yield _deployed(look, name)


def _deployed(look: Look, function: str) -> Finding:
    system = look.clients.system
    full = system.service(function).replace("/services/", "/functions/")
    found = look.fetch(f"{system.endpoints.functions}/v2/{full}", function)
    if isinstance(found, Finding):
        return found
    state = found.get("state", "unknown")
    if state != "ACTIVE":
        return look.failed(function, f"is {state}", f"see its build log; {REDEPLOY}")
    return look.ok(function, "active, settings are valid")


def store(clients: Clients) -> Iterator[Finding]:
    """The DICOM store answers a search, and reports when an instance was stored."""
    system = clients.system
    name = system.store.name.rpartition("/")[2]
    web = f"{system.endpoints.healthcare}/{system.store.name}/dicomWeb"
    look = Look(clients, "DICOM store", _SEARCH)
    try:
        answer = clients.call("GET", f"{web}/instances", params={"limit": "1"})
    except CliError as error:
        yield look.failed(name, "no answer", str(error))
        return
    if answer.status in (401, 403):
        yield look.refused(name)
    elif answer.status not in (200, 204):
        fix = f"is {system.store.name} the right name?"
        yield look.failed(name, f"answers {answer.status}", fix)
    else:
        yield look.ok(name, "answers searches")
        yield _storage_time(look, web, answer.json)


def _storage_time(look: Look, web: str, found: Any) -> Finding:
    """Whether the store reports when an instance was stored: deletes by age (`stored_before`,
    DELETE_MIN_AGE_HOURS) need it."""
    subject = "storage time"
    instance = None
    if isinstance(found, list) and found:
        instance = dicomjson.instance(found[0])
    if instance is None:
        return look.skipped(subject, "the store has no instance yet")
    info = look.fetch(f"{web}/{instance}:getStorageInfo", subject)
    if isinstance(info, Finding):
        return info
    blob = info.get("blobStorageInfo")
    if isinstance(blob, dict) and blob.get("storageClassUpdateTime"):
        return look.ok(subject, "the store reports it")
    return look.failed(
        subject,
        "an instance has no storageClassUpdateTime: deletes by age and overwrites are refused",
        "delete without stored_before and DELETE_MIN_AGE_HOURS, use another CONFLICT_POLICY than"
        " overwrite, and please report it",
    )


LOOKING: Final[tuple[Check, ...]] = (
    buckets,
    notification,
    topics,
    subscriptions,
    dead_letters,
    functions,
    webhooks,
    store,
)


def _binding(system: System, item: Mapping[str, Any], found: Resource) -> Iterator[str]:
    """What is wrong with what the subscription joins."""
    if found.get("topic") != system.topic(item["topic"]):
        yield f"is bound to {found.get('topic')}"
    policy = found.get("deadLetterPolicy", {})
    if policy.get("deadLetterTopic") != system.topic(item["dead_letter_topic"]):
        yield "has no dead letters"
    if "bucket" in item:
        storage = found.get("cloudStorageConfig", {})
        if storage.get("bucket") != system.buckets[item["bucket"]]:
            yield "does not write to the ledger"
        if storage.get("state", "ACTIVE") != "ACTIVE":
            yield f"cannot write to the ledger ({storage['state']})"
        return
    push = found.get("pushConfig", {})
    endpoint = push.get("pushEndpoint", "")
    path = urlsplit(endpoint).path or "/"
    if not endpoint:
        yield "calls no function"
    elif path != _path(system, item):
        yield f"calls {path} of the function"
    # That of a webhook is made of its events.
    is_webhook = "webhooks" in path
    if not is_webhook and found.get("filter", "") != item.get("filter", ""):
        yield "has another filter"


def _path(system: System, item: Mapping[str, Any]) -> str:
    """What of the function a subscription calls."""
    if item["topic"].endswith("_next"):
        return str(system.topology["follow_ups_path"])
    return str(item.get("path", "/"))


def _numbers(system: System, item: Mapping[str, Any], found: Resource) -> Iterator[str]:
    """What is wrong with its delivery policy."""
    delivery = system.topology["delivery"]
    policy = found.get("deadLetterPolicy", {})
    retry = found.get("retryPolicy", {})
    actual = {
        "attempts": policy.get("maxDeliveryAttempts"),
        "ack deadline": found.get("ackDeadlineSeconds"),
        "least back-off": retry.get("minimumBackoff"),
        "most back-off": retry.get("maximumBackoff"),
        "retention": found.get("messageRetentionDuration"),
    }
    least_s = delivery["minimum_backoff_s"]
    most_s = item.get("maximum_backoff_s", delivery["maximum_backoff_s"])
    right = {
        "attempts": item["max_delivery_attempts"],
        "ack deadline": delivery["ack_deadline_s"],
        "least back-off": f"{least_s}s",
        "most back-off": f"{most_s}s",
        "retention": f"{delivery['retention_s']}s",
    }
    for what, value in actual.items():
        if value != right[what]:
            yield f"{what} is {value} and not {right[what]}"
    expiration = found.get("expirationPolicy", {})
    if expiration.get("ttl"):
        yield "expires when it is not used"
    push = found.get("pushConfig")
    if push:
        token = push.get("oidcToken", {})
        if token.get("serviceAccountEmail") != system.delivery:
            yield "calls the function without its account's token"


def _held(clients: Clients, name: str, function: str) -> Finding:
    """Whether there are any; they are given back at once."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, Unauthorized

    look = Look(clients, "dead letters", _PULL)
    full = clients.system.subscription(name)
    try:
        for _ in range(EMPTY_PULLS):
            held = take(clients, full, 1)
            if held:
                give_back(clients, full, held)
                return _waiting(look, name, function)
    except (Forbidden, Unauthorized):
        return look.refused(name)
    except GoogleAPICallError as error:
        return look.failed(name, f"Pub/Sub answered {error.code}", RETRY)
    return look.ok(name, "empty")


def _waiting(look: Look, name: str, function: str) -> Finding:
    whose = function.partition("/")[0]
    log = "the function's log says why"
    if whose == LEDGER:
        log = "Pub/Sub could not write the ledger"
    listed = f"dicom-functions dead-letters list --function {whose}"
    again = f"dicom-functions replay dead-letters --function {whose}"
    return look.failed(
        name,
        "has messages that failed too often",
        f"{listed}; {log}; after the fix: {again}",
    )
