"""The checks that look without touching: what is there, and whether it is as the topology and the
code want it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cli.clients import Clients
from cli.dead_letters import EMPTY_PULLS, give_back, take
from cli.errors import CliError
from cli.findings import REDEPLOY, RETRY, Check, Finding, fetch, refused
from cli.system import LEDGER, System
from functions.common.dicom import dicomjson
from functions.common.errors import SettingsError
from functions.common.settings import Settings

_SEE_BUCKETS: Final = "roles/storage.bucketViewer on the project"
_SEE_PUBSUB: Final = "roles/pubsub.viewer on the project"
_PULL: Final = "roles/pubsub.subscriber on the project"
_SEE_FUNCTIONS: Final = "roles/cloudfunctions.viewer on the project"
_SEARCH: Final = "roles/healthcare.dicomViewer on the DICOM store"


def buckets(clients: Clients) -> Iterator[Finding]:
    """Each bucket is there, uniform and not public."""
    system = clients.system
    for role, name in system.buckets.items():
        url = f"{system.endpoints.storage}/storage/v1/b/{name}"
        found = fetch(clients, url, "bucket", name, _SEE_BUCKETS)
        if isinstance(found, Finding):
            yield found
            continue
        rules = found.get("iamConfiguration", {})
        uniform = rules.get("uniformBucketLevelAccess", {}).get("enabled") is True
        private = rules.get("publicAccessPrevention") == "enforced"
        if system.local or (uniform and private):
            yield Finding("bucket", name, "ok", role)
        else:
            wrong = "could be made public" if uniform else "is not uniform"
            yield Finding("bucket", name, "failed", f"the {role} bucket {wrong}", REDEPLOY)


def notification(clients: Clients) -> Iterator[Finding]:
    """The landing bucket tells the uploads topic of each new object."""
    system = clients.system
    bucket = system.buckets["landing"]
    topic = system.topic("uploads")
    if system.local:
        detail = "the local bucket server has none to ask for: the probe tells"
        yield Finding("notification", bucket, "skipped", detail)
        return
    url = f"{system.endpoints.storage}/storage/v1/b/{bucket}/notificationConfigs"
    found = fetch(clients, url, "notification", bucket, _SEE_BUCKETS)
    if isinstance(found, Finding):
        yield found
    elif any(_notifies(item, topic) for item in found.get("items", [])):
        yield Finding("notification", bucket, "ok", f"to {topic}")
    else:
        detail = f"does not notify {topic}: uploads are not seen"
        yield Finding("notification", bucket, "failed", detail, REDEPLOY)


def _notifies(item: Mapping[str, Any], topic: str) -> bool:
    return (
        item.get("payload_format") == "JSON_API_V1"
        and "OBJECT_FINALIZE" in item.get("event_types", [])
        and str(item.get("topic", "")).endswith(topic)
        and not item.get("object_name_prefix")
    )


def topics(clients: Clients) -> Iterator[Finding]:
    """Each topic is there, those of dead letters too."""
    system = clients.system
    names = [
        *system.topology["topics"].values(),
        *(item["dead_letter_topic"] for item in system.bound.values()),
    ]
    for name in names:
        url = f"{system.endpoints.pubsub}/v1/{system.topic(name)}"
        found = fetch(clients, url, "topic", name, _SEE_PUBSUB)
        yield found if isinstance(found, Finding) else Finding("topic", name, "ok")


def subscriptions(clients: Clients) -> Iterator[Finding]:
    """Each subscription is bound, delivers and gives up as the topology says, and never expires."""
    system = clients.system
    for item in system.bound.values():
        name = item.get("subscription") or item["name"]
        url = f"{system.endpoints.pubsub}/v1/{system.subscription(name)}"
        found = fetch(clients, url, "subscription", name, _SEE_PUBSUB)
        if isinstance(found, Finding):
            yield found
            continue
        wrong = list(_binding(system, item, found))
        if not system.local:
            wrong += _numbers(system, item, found)
        if wrong:
            yield Finding("subscription", name, "failed", "; ".join(wrong), REDEPLOY)
        else:
            detail = f"dead letters to {item['dead_letter_topic']}"
            yield Finding("subscription", name, "ok", detail)


def dead_letters(clients: Clients) -> Iterator[Finding]:
    """Each subscription for dead letters is there and empty."""
    system = clients.system
    for function, item in system.bound.items():
        name = item["dead_letter_subscription"]
        url = f"{system.endpoints.pubsub}/v1/{system.subscription(name)}"
        found = fetch(clients, url, "dead letters", name, _SEE_PUBSUB)
        if isinstance(found, Finding):
            yield found
        elif not found.get("topic", "").endswith(f"/{item['dead_letter_topic']}"):
            detail = "is bound to another topic: they are lost"
            yield Finding("dead letters", name, "failed", detail, REDEPLOY)
        else:
            yield _held(clients, name, function)


def functions(clients: Clients) -> Iterator[Finding]:
    """Each function is deployed, active, and has settings that it can start with."""
    system = clients.system
    for name, environment in system.environments.items():
        given = {key: value for key, value in environment.items() if key.isupper()}
        try:
            Settings.load(name, given)
        except SettingsError as error:
            fix = "set it (README.md, Settings) and deploy again"
            yield Finding("function", name, "failed", str(error), fix)
            continue
        if system.local:
            yield Finding("function", name, "ok", "settings are whole")
        else:
            yield _deployed(clients, name)


def _deployed(clients: Clients, function: str) -> Finding:
    system = clients.system
    full = system.service(function).replace("/services/", "/functions/")
    url = f"{system.endpoints.functions}/v2/{full}"
    found = fetch(clients, url, "function", function, _SEE_FUNCTIONS)
    if isinstance(found, Finding):
        return found
    state = found.get("state", "unknown")
    if state != "ACTIVE":
        fix = f"see its build log; {REDEPLOY}"
        return Finding("function", function, "failed", f"is {state}", fix)
    return Finding("function", function, "ok", "active, settings are whole")


def store(clients: Clients) -> Iterator[Finding]:
    """The DICOM store answers a search, and says when an instance was stored."""
    system = clients.system
    name = system.store.name.rpartition("/")[2]
    web = f"{system.endpoints.healthcare}/{system.store.name}/dicomWeb"
    try:
        answer = clients.call("GET", f"{web}/instances", params={"limit": "1"})
    except CliError as error:
        yield Finding("DICOM store", name, "failed", "no answer", str(error))
        return
    if answer.status in (401, 403):
        yield refused("DICOM store", name, _SEARCH)
    elif answer.status not in (200, 204):
        fix = f"is {system.store.name} the right name?"
        yield Finding("DICOM store", name, "failed", f"answers {answer.status}", fix)
    else:
        yield Finding("DICOM store", name, "ok", "answers searches")
        yield _storage_time(clients, web, answer.json)


def _storage_time(clients: Clients, web: str, found: Any) -> Finding:
    """Whether the store says when an instance was stored: the limits of a delete by age
    (`stored_before`, DELETE_MIN_AGE_HOURS) stand on it."""
    instances = found if isinstance(found, list) else []
    instance = next(filter(None, map(dicomjson.instance, instances)), None)
    subject = "storage time"
    if instance is None:
        return Finding("DICOM store", subject, "skipped", "there is no instance to ask about yet")
    url = f"{web}/{instance}:getStorageInfo"
    info = fetch(clients, url, "DICOM store", subject, _SEARCH)
    if isinstance(info, Finding):
        return info
    blob = info.get("blobStorageInfo")
    if isinstance(blob, dict) and blob.get("storageClassUpdateTime"):
        return Finding("DICOM store", subject, "ok", "is known of an instance")
    return Finding(
        "DICOM store",
        subject,
        "failed",
        "an instance has no storageClassUpdateTime: deletes by age are refused",
        "delete without stored_before and DELETE_MIN_AGE_HOURS, and please report it",
    )


LOOKING: Final[tuple[Check, ...]] = (
    buckets,
    notification,
    topics,
    subscriptions,
    dead_letters,
    functions,
    store,
)


def _binding(system: System, item: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with what the subscription joins."""
    if found.get("topic") != system.topic(item["topic"]):
        yield f"is bound to {found.get('topic')}"
    dead = found.get("deadLetterPolicy", {}).get("deadLetterTopic")
    if dead != system.topic(item["dead_letter_topic"]):
        yield "has no dead letters"
    if "bucket" in item:
        storage = found.get("cloudStorageConfig", {})
        if storage.get("bucket") != system.buckets[item["bucket"]]:
            yield "does not write to the ledger"
        if storage.get("state", "ACTIVE") != "ACTIVE":
            yield f"cannot write to the ledger ({storage['state']})"
        return
    endpoint = found.get("pushConfig", {}).get("pushEndpoint", "")
    is_for_follow_ups = item["topic"].endswith("_next")
    if not endpoint:
        yield "calls no function"
    elif endpoint.endswith(system.topology["follow_ups_path"]) != is_for_follow_ups:
        yield f"calls {urlsplit(endpoint).path or '/'} of the function"


def _numbers(system: System, item: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with how it delivers."""
    delivery = system.topology["delivery"]
    policy = found.get("deadLetterPolicy", {})
    retry = found.get("retryPolicy", {})
    wanted = (
        ("attempts", policy.get("maxDeliveryAttempts"), item["max_delivery_attempts"]),
        ("ack deadline", found.get("ackDeadlineSeconds"), delivery["ack_deadline_s"]),
        ("least back-off", retry.get("minimumBackoff"), f"{delivery['minimum_backoff_s']}s"),
        ("most back-off", retry.get("maximumBackoff"), f"{delivery['maximum_backoff_s']}s"),
        ("retention", found.get("messageRetentionDuration"), f"{delivery['retention_s']}s"),
    )
    for what, actual, right in wanted:
        if actual != right:
            yield f"{what} is {actual} and not {right}"
    if found.get("expirationPolicy", {}).get("ttl"):
        yield "expires"
    push = found.get("pushConfig")
    if push and push.get("oidcToken", {}).get("serviceAccountEmail") != system.delivery:
        yield "calls the function without its account's token"


def _held(clients: Clients, name: str, function: str) -> Finding:
    """Whether there are any: they are looked at and left where they are."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, Unauthorized

    full = clients.system.subscription(name)
    try:
        for _ in range(EMPTY_PULLS):
            held = take(clients, full, 1)
            if held:
                give_back(clients, full, held)
                return _waiting(name, function)
    except (Forbidden, Unauthorized):
        return refused("dead letters", name, _PULL)
    except GoogleAPICallError as error:
        return Finding("dead letters", name, "failed", f"Pub/Sub answered {error.code}", RETRY)
    return Finding("dead letters", name, "ok", "empty")


def _waiting(name: str, function: str) -> Finding:
    whose = function.partition("/")[0]
    listed = f"dicom-functions dead-letters list --function {whose}"
    again = f"dicom-functions replay dead-letters --function {whose}"
    log = "Pub/Sub could not write the ledger" if whose == LEDGER else "its log says why"
    return Finding(
        check="dead letters",
        subject=name,
        status="failed",
        detail="holds messages that failed too often",
        fix=f"{listed}; {log}; after the fix: {again}",
    )
