"""A cloud as Terraform would make it: the plan's resources behind Google's REST APIs, as far as the
doctor asks."""

import json
import re
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cli.system import Endpoints
from tests.infra import iam_table
from tests.infra.terraform import PROJECT, Plan

REGION: Final = "us-central1"
STORE: Final = f"projects/{PROJECT}/locations/{REGION}/datasets/dicom-functions/dicomStores/scans"
PLACE: Final = f"projects/{PROJECT}/locations/{REGION}"
DELIVERY: Final = f"dicom-delivery@{PROJECT}.iam.gserviceaccount.com"
AGENTS: Final = {
    "Pub/Sub": "service-1@gcp-sa-pubsub.iam.gserviceaccount.com",
    "Cloud Storage": "service-1@gs-project-accounts.iam.gserviceaccount.com",
    "Healthcare": "service-1@gcp-sa-healthcare.iam.gserviceaccount.com",
}
INSTANCE_PATH: Final = "studies/1.2/series/1.2.3/instances/1.2.3.4"
INSTANCE: Final = {
    "0020000D": {"vr": "UI", "Value": ["1.2"]},
    "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
    "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
}
SERVICES: Final = f"projects/{PROJECT}/locations/{REGION}/services"
_PREDEFINED: Final = {
    "roles/pubsub.publisher": ("pubsub.topics.publish",),
    "roles/secretmanager.secretAccessor": ("secretmanager.versions.access",),
}


class FakeCloud:
    """Serves `answers` (path to status and JSON) and what accounts may do (`allowed`); tests change
    both."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.answers: dict[str, tuple[int, Any]] = {}
        self.allowed: dict[tuple[str, str], set[str]] = {}
        self.may_impersonate = True
        self._buckets()
        self._pubsub()
        self._functions()
        self._rights()
        self._dicom_store()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def system_file(self) -> dict[str, Any]:
        """What deploy.sh would write: the output `system`, with this server's addresses."""
        functions = self.plan.by_name("google_cloudfunctions2_function").values()
        names = {f["build_config"][0]["entry_point"]: f for f in functions}
        here = dict.fromkeys(asdict(Endpoints()), self.base)
        here["healthcare"] = f"{self.base}/v1"
        return {
            "project": PROJECT,
            "region": REGION,
            "dicom_store": STORE,
            "buckets": {
                role: f"{PROJECT}-dicom-{role}"
                for role in ("landing", "quarantine", "export", "ledger", "state")
            },
            "search_url": self.base,
            "search_ingress": "ALLOW_ALL",
            "build": f"dicom-build@{PROJECT}.iam.gserviceaccount.com",
            "delivery": DELIVERY,
            "webhook_secrets": self._webhook_secrets(),
            "environments": {
                n: f["service_config"][0]["environment_variables"] for n, f in names.items()
            },
            "accounts": {
                n: f["service_config"][0]["service_account_email"] for n, f in names.items()
            },
            "endpoints": here,
        }

    def _webhook_secrets(self) -> dict[str, str]:
        """The secret's name of each webhook."""
        functions = self.plan.by_name("google_cloudfunctions2_function")
        if "dicom-notify" not in functions:
            return {}
        service = functions["dicom-notify"]["service_config"][0]
        secrets = {one["key"]: one["secret"] for one in service["secret_environment_variables"]}
        names = json.loads(service["environment_variables"].get("WEBHOOKS", "{}"))
        variables = {name: name.upper().replace("-", "_") for name in names}
        return {name: secrets[f"WEBHOOK_SECRET_{text}"] for name, text in variables.items()}

    def _buckets(self) -> None:
        for name, bucket in self.plan.by_name("google_storage_bucket").items():
            uniform = {"enabled": bucket["uniform_bucket_level_access"]}
            prevention = bucket["public_access_prevention"]
            rules = {"uniformBucketLevelAccess": uniform, "publicAccessPrevention": prevention}
            keys = [one["default_kms_key_name"] for one in bucket["encryption"]]
            found = {
                "name": name,
                "iamConfiguration": rules,
                "encryption": {"defaultKmsKeyName": keys[0]} if keys else {},
            }
            self.answers[f"/storage/v1/b/{name}"] = (200, found)
        ((_, notice),) = self.plan.resources("google_storage_notification")
        topic = f"//pubsub.googleapis.com/projects/{PROJECT}/topics/dicom-uploads"
        item = {
            "topic": topic,
            "event_types": notice["event_types"],
            "payload_format": notice["payload_format"],
        }
        self.answers[f"/storage/v1/b/{notice['bucket']}/notificationConfigs"] = (
            200,
            {"items": [item]},
        )

    def _pubsub(self) -> None:
        base = f"/v1/projects/{PROJECT}"
        for name in self.plan.by_name("google_pubsub_topic"):
            self.answers[f"{base}/topics/{name}"] = (200, {"name": name})
        for name, planned in self.plan.by_name("google_pubsub_subscription").items():
            self.answers[f"{base}/subscriptions/{name}"] = (200, _subscription(name, planned))
            for method in ("pull", "modifyAckDeadline"):
                self.answers[f"{base}/subscriptions/{name}:{method}"] = (200, {})

    def _functions(self) -> None:
        for name in self.plan.by_name("google_cloudfunctions2_function"):
            path = f"/v2/{SERVICES}/{name}".replace("/services/", "/functions/")
            self.answers[path] = (200, {"state": "ACTIVE"})

    def _dicom_store(self) -> None:
        dataset: dict[str, Any] = {}
        for values in self.plan.by_name("google_healthcare_dataset").values():
            for spec in values.get("encryption_spec", ()):
                dataset = {"encryptionSpec": {"kmsKeyName": spec["kms_key_name"]}}
        dataset_name = STORE.rpartition("/dicomStores/")[0]
        self.answers[f"/v1/{dataset_name}"] = (200, dataset)
        web = f"/v1/{STORE}/dicomWeb"
        self.answers[f"{web}/instances"] = (200, [INSTANCE])
        info = {"blobStorageInfo": {"storageClassUpdateTime": "2026-01-01T00:00:00Z"}}
        self.answers[f"{web}/{INSTANCE_PATH}:getStorageInfo"] = (200, info)

    def _rights(self) -> None:
        bindings: dict[str, list[dict[str, Any]]] = {}
        for account, kind, name, allowed in iam_table.rights(self.plan):
            resource = {
                "topic": f"projects/{PROJECT}/topics/{name}",
                "subscription": f"projects/{PROJECT}/subscriptions/{name}",
                "function": f"{SERVICES}/{name}",
                "DICOM store": _healthcare(name),
                "dataset": _healthcare(name),
                "secret": f"projects/{PROJECT}/secrets/{name}",
                "bucket": f"{PROJECT}-{name.partition('/')[0]}",
                "project": f"projects/{PROJECT}",
                "service account": f"projects/{PROJECT}/serviceAccounts/{DELIVERY}",
                "artifact registry repository": f"{PLACE}/repositories/{name}",
                "kms crypto key": name.replace("PROJECT", PROJECT),
            }.get(kind, name)
            permissions = [p for entry in allowed for p in _PREDEFINED.get(entry, (entry,))]
            self.allowed.setdefault((account, resource), set()).update(permissions)
            member = AGENTS.get(account, f"{account}@{PROJECT}.iam.gserviceaccount.com")
            for role in allowed:
                bindings.setdefault(resource, []).append(
                    {"role": role, "members": [f"serviceAccount:{member}"]}
                )
        for resource, found in bindings.items():
            version = "v2" if "/services/" in resource else "v1"
            policy = (200, {"bindings": found})
            self.answers[f"/{version}/{resource}:getIamPolicy"] = policy
            self.answers[f"/storage/v1/b/{resource}/iam"] = policy

    def answer(self, method: str, target: str, body: bytes, authorization: str) -> tuple[int, Any]:
        """The answer to a request."""
        url = urlsplit(target)
        if url.path.endswith(":generateAccessToken"):
            return self._access_token(url.path)
        account = authorization.removeprefix("Bearer ")
        of_resource = re.fullmatch(r"/v1/(.*):testIamPermissions", url.path)
        if of_resource:
            permissions = json.loads(body)["permissions"]
            return self._permitted(account, of_resource[1], permissions)
        of_bucket = re.fullmatch(r"/storage/v1/b/([^/]+)/iam/testPermissions", url.path)
        if of_bucket:
            permissions = parse_qs(url.query)["permissions"]
            return self._permitted(account, of_bucket[1], permissions)
        return self.answers.get(url.path, (404, {"error": {"code": 404}}))

    def _access_token(self, path: str) -> tuple[int, Any]:
        if not self.may_impersonate:
            return 403, {}
        account = path.rpartition("/")[2].partition("@")[0]
        return 200, {"accessToken": account}

    def _permitted(self, account: str, resource: str, tested: list[str]) -> tuple[int, Any]:
        allowed = self.allowed.get((account, resource), set())
        return 200, {"permissions": [p for p in tested if p in allowed]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, found = cloud.answer(
                    self.command, self.path, body, self.headers.get("Authorization", "")
                )
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = _answer

            # `format` is the name in the base class.
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep quiet."""

        return Handler


def _healthcare(short: str) -> str:
    """PROJECT/LOCATION/DATASET[/STORE] as a full name."""
    kinds = ("projects", "locations", "datasets", "dicomStores")
    parts = short.replace("PROJECT", PROJECT).split("/")
    return "/".join(f"{kind}/{part}" for kind, part in zip(kinds, parts, strict=False))


def _topic(name: str) -> str:
    """The topic of a subscription, of which the plan only has a reference."""
    if name.endswith("-hold"):
        return name.removesuffix("-hold")
    return name.rpartition("-")[0]


def _dead_letter_topic(name: str) -> str:
    shared = ("dicom-outcomes-watch", "dicom-outcomes-requests", "dicom-outcomes-webhook-")
    if name.startswith(shared):
        return f"{name}-dead"  # of several on the outcomes topic
    return f"{_topic(name)}-dead"


def _path(name: str) -> str:
    """What of a function a subscription calls."""
    if "-next-" in name:
        return "/follow-ups"
    if name == "dicom-outcomes-requests":
        return "/requests"
    _, is_webhook, webhook = name.partition("dicom-outcomes-webhook-")
    return f"/webhooks/{webhook}" if is_webhook else ""


def _subscription(name: str, planned: dict[str, Any]) -> dict[str, Any]:
    """As the REST API has it. Topics and URLs, which the plan does not know yet, are as the
    references say."""
    topics = f"projects/{PROJECT}/topics"
    found: dict[str, Any] = {
        "topic": planned.get("topic") or f"{topics}/{_topic(name)}",
        "ackDeadlineSeconds": planned["ack_deadline_seconds"],
        "messageRetentionDuration": planned["message_retention_duration"],
        "expirationPolicy": {},
    }
    for policy in planned["dead_letter_policy"]:
        attempts = policy["max_delivery_attempts"]
        found["deadLetterPolicy"] = {
            "deadLetterTopic": f"{topics}/{_dead_letter_topic(name)}",
            "maxDeliveryAttempts": attempts,
        }
    if planned["filter"]:
        found["filter"] = planned["filter"]
    for retry in planned["retry_policy"]:
        backoff = {
            "minimumBackoff": retry["minimum_backoff"],
            "maximumBackoff": retry["maximum_backoff"],
        }
        found["retryPolicy"] = backoff
    for push in planned["push_config"]:
        email = push["oidc_token"][0]["service_account_email"]
        found["pushConfig"] = {
            "pushEndpoint": f"https://x{_path(name)}",
            "oidcToken": {"serviceAccountEmail": email},
        }
    for storage in planned["cloud_storage_config"]:
        found["cloudStorageConfig"] = {"bucket": storage["bucket"], "state": "ACTIVE"}
    return found
