"""infra/gcp: commands by HTTP, webhooks, and complete studies, which are off by default."""

import json
from typing import Any, get_args

import pytest

from functions.common.events.outcomes import Word
from functions.common.settings import NOTIFY, SEARCH, WATCH, Settings
from functions.notify import webhooks
from functions.watch import orders
from tests.infra import iam_table, terraform
from tests.infra.chosen import OPTIONAL, TOPOLOGY, WEBHOOKS, WORKFLOWS
from tests.infra.terraform import GCP, PROJECT, Plan, TerraformError

pytestmark = pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())

PUBLISH = "roles/pubsub.publisher"
DEPLOYED = [*TOPOLOGY["functions"], *TOPOLOGY["http_functions"]]


def service(plan: Plan, name: str) -> dict[str, Any]:
    function = plan.by_name("google_cloudfunctions2_function")[name]
    found: dict[str, Any] = function["service_config"][0]
    return found


def webhook(**changed: object) -> dict[str, Any]:
    return {"url": "https://a.example.org/", "secret": "s", **changed}


def order(**changed: object) -> dict[str, Any]:
    return {
        "name": "a",
        "export": {"destination": f"gs://{PROJECT}-dicom-export"},
        **changed,
    }


def test_nothing_optional_is_deployed_by_default() -> None:
    plan = terraform.plan()
    names = set(plan.by_name("google_cloudfunctions2_function"))
    assert names == {f"dicom-{name.replace('_', '-')}" for name in DEPLOYED}
    services = {values["service"] for _, values in plan.resources("google_project_service")}
    assert "secretmanager.googleapis.com" not in services


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"commands": True}, {"dicom-commands", "dicom-notify"}),
        ({"webhooks": WEBHOOKS}, {"dicom-notify"}),
        ({"watch_studies": True}, {"dicom-watch-studies"}),
        ({"search_exports": True}, {"dicom-notify"}),
        ({"search_uploads": True}, {"dicom-notify"}),
    ],
    ids=["commands", "webhooks", "watch_studies", "search_exports", "search_uploads"],
)
def test_each_optional_function_can_be_deployed_alone(
    variables: dict[str, Any], wanted: set[str]
) -> None:
    alone = terraform.plan(**variables).by_name("google_cloudfunctions2_function")
    without = terraform.plan().by_name("google_cloudfunctions2_function")
    assert alone.keys() - without.keys() == wanted


def test_requests_are_kept_only_where_somebody_reads_them() -> None:
    plan = terraform.plan(webhooks=WEBHOOKS)
    assert "dicom-outcomes-requests" not in plan.by_name("google_pubsub_subscription")
    kept = [name for account, _, name, _ in iam_table.rights(plan) if account == "dicom-notify"]
    assert sorted(kept) == ["archive-webhook", "dicom-state/webhooks/", "reading-room-webhook"]


@pytest.mark.parametrize("variable", ["search_exports", "search_uploads"])
def test_the_page_may_read_the_state_of_its_exports_and_uploads(variable: str) -> None:
    plan = terraform.plan(**{variable: True})
    environment = service(plan, "dicom-search")["environment_variables"]
    assert Settings.load(SEARCH, environment).state_bucket == f"{PROJECT}-dicom-state"
    subscription = plan.by_name("google_pubsub_subscription")["dicom-outcomes-requests"]
    assert subscription["filter"] == "attributes:request_id"


def test_the_page_uploads_into_the_landing_bucket() -> None:
    plan = terraform.plan(search_uploads=True)
    settings = Settings.load(SEARCH, service(plan, "dicom-search")["environment_variables"])
    assert settings.search_uploads
    assert settings.landing_bucket == f"{PROJECT}-dicom-landing"


def test_no_secret_is_in_the_plan_and_each_has_its_own_variable() -> None:
    plan = terraform.plan(**WORKFLOWS)
    secrets = service(plan, "dicom-notify")["secret_environment_variables"]
    assert {one["key"]: one["secret"] for one in secrets} == {
        "WEBHOOK_SECRET_READING_ROOM": "reading-room-webhook",
        "WEBHOOK_SECRET_ARCHIVE": "archive-webhook",
    }
    assert {one["version"] for one in secrets} == {"latest"}
    kinds = {kind for kind in plan.types() if "secret_manager" in kind}
    assert kinds == {"google_secret_manager_secret_iam_member"}


def test_the_function_reads_the_webhooks_that_terraform_gives_it() -> None:
    plan = terraform.plan(**WORKFLOWS)
    found = service(plan, "dicom-notify")
    secret = "whsec_" + "c" * 32
    secrets = dict.fromkeys((one["key"] for one in found["secret_environment_variables"]), secret)
    read = webhooks.read(Settings.load(NOTIFY, {**found["environment_variables"], **secrets}))
    assert {name: (one.url, set(one.events), one.include_names) for name, one in read.items()} == {
        "reading-room": (
            "https://ris.example.org/dicom",
            {"stored", "study_complete"},
            False,
        ),
        "archive": ("https://archive.example.org/", set(), False),
    }


def test_the_function_reads_the_orders_that_terraform_gives_it() -> None:
    environment = service(terraform.plan(**WORKFLOWS), "dicom-watch-studies")[
        "environment_variables"
    ]
    names = [order.name for order in orders.read(Settings.load(WATCH, environment))]
    assert names == ["ct-to-training", "copy"]


def test_the_subscriptions_of_the_outcomes_have_the_filters_of_the_topology() -> None:
    subscriptions = terraform.plan(**WORKFLOWS).by_name("google_pubsub_subscription")
    topic = f"projects/{PROJECT}/topics/dicom-outcomes"
    for item in OPTIONAL["functions"].values():
        found = subscriptions[item["subscription"]]
        assert found["topic"] == topic
        assert found["filter"] == item["filter"]
    found = subscriptions["dicom-outcomes-webhook-reading-room"]
    assert found["filter"] == (
        'attributes.outcome = "stored" OR attributes.outcome = "study_complete"'
    )
    assert subscriptions["dicom-outcomes-webhook-archive"]["filter"] is None


def test_a_filter_that_pubsub_would_not_take_is_left_out() -> None:
    """A filter has at most 256 bytes."""
    words = list(get_args(Word))
    counts = range(1, len(words) + 1)
    made = {f"of-{count}": {**webhook(), "events": words[:count]} for count in counts}
    subscriptions = terraform.plan(webhooks=made).by_name("google_pubsub_subscription")
    filters = [subscriptions[f"dicom-outcomes-webhook-of-{count}"]["filter"] for count in counts]
    assert all(len(text.encode()) <= 256 for text in filters if text)
    assert filters[4] == " OR ".join(f'attributes.outcome = "{word}"' for word in words[:5])
    assert filters[-1] is None


def test_the_rights_of_each_are_the_least() -> None:
    rights = iam_table.rights(terraform.plan(**WORKFLOWS))
    kept = (
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.get",
        "storage.objects.list",
    )
    read = ("healthcare.dicomStores.dicomWebRead",)
    wanted = {
        "dicom-commands": {
            ("topic", "dicom-exports", (PUBLISH,)),
            ("topic", "dicom-deletes", (PUBLISH,)),
            ("bucket", "dicom-state/requests/", kept),
        },
        "dicom-notify": {
            ("bucket", "dicom-state/requests/", kept),
            ("bucket", "dicom-state/webhooks/", kept),
            ("secret", "reading-room-webhook", ("roles/secretmanager.secretAccessor",)),
            ("secret", "archive-webhook", ("roles/secretmanager.secretAccessor",)),
        },
        "dicom-watch-studies": {
            ("DICOM store", "PROJECT/us-central1/dicom-functions/scans", read),
            ("bucket", "dicom-state/studies/", kept),
            ("topic", "dicom-outcomes", (PUBLISH,)),
            ("topic", "dicom-studies-next", (PUBLISH,)),
            ("topic", "dicom-exports", (PUBLISH,)),
        },
    }
    for account, allowed in wanted.items():
        assert {(kind, name, may) for who, kind, name, may in rights if who == account} == allowed


def test_without_orders_nothing_is_exported() -> None:
    rights = iam_table.rights(terraform.plan(watch_studies=True))
    topics = {
        name for who, kind, name, _ in rights if (who, kind) == ("dicom-watch-studies", "topic")
    }
    assert topics == {"dicom-outcomes", "dicom-studies-next"}


def test_the_alert_of_webhooks_looks_at_theirs_and_the_other_one_does_not() -> None:
    plan = terraform.plan(**WORKFLOWS)
    policies = {a.split('"')[1]: v for a, v in plan.resources("google_monitoring_alert_policy")}
    threshold = policies["webhook"]["conditions"][0]["condition_threshold"][0]
    assert threshold["threshold_value"] == 3600
    assert "oldest_unacked_message_age" in threshold["filter"]
    for name in WEBHOOKS:
        assert f"dicom-outcomes-webhook-{name}" in threshold["filter"]
    assert "webhook" not in json.dumps(policies["oldest_message"]["conditions"])


def test_filters_of_alerts_are_short_enough_with_as_many_webhooks_as_there_may_be() -> None:
    """Cloud Monitoring takes 2,048 characters."""
    names = [f"{'a' * 38}{number:02}" for number in range(20)]
    many = {name: {"url": "https://a.example.org/", "secret": "s"} for name in names}
    plan = terraform.plan(webhooks=many, watch_studies=True, commands=True)
    for address, policy in plan.resources("google_monitoring_alert_policy"):
        threshold = policy["conditions"][0]["condition_threshold"][0]
        assert len(threshold["filter"]) <= 2048, address


def test_handing_back_while_a_study_is_not_complete_is_no_failure() -> None:
    """watch_studies answers 503 until a study is quiet: an alert of failures does not count it."""
    plan = terraform.plan(watch_studies=True)
    policies = {a.split('"')[1]: v for a, v in plan.resources("google_monitoring_alert_policy")}
    threshold = policies["server_errors"]["conditions"][0]["condition_threshold"][0]
    for text in (threshold["filter"], threshold["denominator_filter"]):
        assert "NOT resource.labels.service_name" in text
        assert "dicom-watch-studies" in text


def test_the_words_of_outcomes_are_those_of_the_code() -> None:
    text = (GCP / "workflows.tf").read_text()
    listed = text.partition("  outcomes = [")[2].partition("]")[0]
    assert tuple(json.loads(f"[{listed.strip().rstrip(',')}]")) == get_args(Word)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {
                "webhooks": {
                    "A": webhook(),
                    "b": webhook(url="http://a.example.org/"),
                    "c": webhook(events=["storred"]),
                    "d": webhook(secret="whsec_c2VjcmV0="),
                },
                "extra_environment": {"notify": {"WEBHOOK_SECRET_B": "x"}},
                "commands_callers": ["allUsers"],
                "commands_ingress": "ALL",
                "study_quiet_s": 0,
                "on_study_complete": [
                    order(name="A"),
                    order(export={"destination": "gs://elsewhere/ct"}),
                    order(),
                ],
            },
            (
                "A name is up to 40 lowercase letters",
                "A URL is https",
                "Events must be among stored",
                "the name of a secret in this project",
                "its value would be in the state",
                "could delete scans",
                "commands_callers needs commands = true",
                "ALLOW_INTERNAL_ONLY or",
                "from 1 to 86400",
                "An order has name",
                "The destination of an export",
                "Two orders have the same name",
                "on_study_complete needs watch_studies = true",
            ),
        ),
        (
            {
                "webhooks": {
                    "a-dead-hold": webhook(),
                    "b": webhook(url="https://user@a.example.org/"),
                },
                "watch_studies": True,
                "on_study_complete": [order(matches={"Modality": "CT"})],
            },
            ("does not end in -dead-hold", "A URL is https", "An order has name"),
        ),
    ],
    ids=["many", "more"],
)
def test_what_the_functions_would_refuse_is_refused_before(
    variables: dict[str, Any], said: tuple[str, ...]
) -> None:
    with pytest.raises(TerraformError) as refused:
        terraform.plan(**variables)
    assert [text for text in said if text not in str(refused.value)] == []
