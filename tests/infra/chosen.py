"""The topology, and sets of variables for the tests of infra/gcp."""

import json
from typing import Any

from tests.infra.terraform import PROJECT, ROOT, Plan

TOPOLOGY = json.loads((ROOT / "infra" / "topology.json").read_text())
DELIVERY = TOPOLOGY["delivery"]
LEDGER = TOPOLOGY["ledger_subscription"]
FOLLOW_UPS = [item["follow_ups"] for item in TOPOLOGY["functions"].values()]
BOUND = [*TOPOLOGY["functions"].values(), *FOLLOW_UPS, LEDGER]  # what has a dead letter
OPTIONAL = TOPOLOGY["optional"]
WEBHOOKS: dict[str, Any] = {
    "reading-room": {
        "url": "https://ris.example.org/dicom",
        "events": ["stored", "study_complete"],
        "secret": "reading-room-webhook",
    },
    "archive": {"url": "https://archive.example.org/", "secret": "archive-webhook"},
}


def _webhook(name: str) -> dict[str, Any]:
    subscription = OPTIONAL["webhooks"]["prefix"] + name
    return {
        "topic": "outcomes",
        "subscription": subscription,
        "path": OPTIONAL["webhooks"]["path"] + name,
        "dead_letter_topic": f"{subscription}-dead",
        "dead_letter_subscription": f"{subscription}-dead-hold",
        "max_delivery_attempts": OPTIONAL["webhooks"]["max_delivery_attempts"],
    }


_WATCH = OPTIONAL["functions"]["watch_studies"]
_NOTIFY = OPTIONAL["functions"]["notify"]
OPTIONAL_BOUND = [_WATCH, _WATCH["follow_ups"], _NOTIFY, *map(_webhook, WEBHOOKS)]
# Read by functions-framework, not by this project.
PLATFORM_VARIABLES = {"THREADS", "LOG_EXECUTION_ID"}
WORKFLOWS: dict[str, Any] = {
    "commands": True,
    "commands_callers": ["serviceAccount:robot@example.org"],
    "webhooks": WEBHOOKS,
    "watch_studies": True,
    "on_study_complete": [
        {
            "name": "ct-to-training",
            "match": {"Modality": "CT"},
            "export": {"destination": f"gs://{PROJECT}-dicom-export/ct", "format": "png"},
        },
        {"name": "copy", "export": {"destination": f"gs://{PROJECT}-dicom-export"}},
    ],
}
PAGE: dict[str, Any] = {"search_exports": True, "search_uploads": True}
EVERYTHING: dict[str, Any] = {
    **WORKFLOWS,
    "conflict_policy": "overwrite",
    "source_disposition": "move",
    "move_destination": "gs://done-bucket/scans",
    "delete_stores": [
        f"projects/{PROJECT}/locations/us-central1/datasets/research/dicomStores/mri"
    ],
    **PAGE,
    "search_retrieve": True,
    "uploaders": ["group:modalities@example.org"],
    "search_callers": ["group:readers@example.org"],
    "command_publishers": {
        "deletes": ["user:head@example.org"],
        "exports": ["group:readers@example.org"],
    },
    "export_destinations": ["gs://research-bucket/in"],
    "kms_key": "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/k",
    "audit_logs": True,
    "alert_email": "oncall@example.org",
    "billing_account": "000000-000000-000000",
    "budget": 100,
    "retention_days": {"export": 30},
    "vpc_connector": f"projects/{PROJECT}/locations/us-central1/connectors/c",
}
TURNED: dict[str, Any] = {
    "worker_pool": f"projects/{PROJECT}/locations/us-central1/workerPools/w",
    "build_service_account": f"builder@{PROJECT}.iam.gserviceaccount.com",
    "extra_environment": {"export_resource": {"BUDGET_S": "100"}},
    "functions": {"store_upload": {"max_instances": 300}},
}


def bound(plan: Plan) -> list[dict[str, Any]]:
    """What has a dead letter in this plan."""
    if "dicom-notify" in plan.by_name("google_cloudfunctions2_function"):
        return [*BOUND, *OPTIONAL_BOUND]
    return BOUND
