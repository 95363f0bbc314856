"""The doctor, on a cloud with commands by HTTP, webhooks and complete studies."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_doctor import doctor, failed, needs_terraform
from tests.infra import terraform
from tests.infra.chosen import PAGE, WEBHOOKS, WORKFLOWS
from tests.infra.fake_cloud import FakeCloud
from tests.infra.terraform import PROJECT


@pytest.fixture
def workflows(tmp_path: Path) -> Iterator[tuple[FakeCloud, Path]]:
    """A cloud with commands, webhooks and complete studies, and its file."""
    made = FakeCloud(terraform.plan(**WORKFLOWS))
    path = tmp_path / "system.json"
    path.write_text(json.dumps(made.system_file()))
    yield made, path
    made.close()


@needs_terraform
def test_deployed_optional_functions_are_checked(
    workflows: tuple[FakeCloud, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = workflows
    status, findings = doctor(path, "--no-probe", capsys=capsys)
    assert status == 0
    assert failed(findings) == []
    subjects = {(f["check"], f["subject"]) for f in findings}
    assert subjects >= {
        ("function", "commands"),
        ("topic", "dicom-studies-next"),
        ("subscription", "dicom-outcomes-requests"),
        ("subscription", "dicom-outcomes-webhook-reading-room"),
        ("dead letters", "dicom-outcomes-webhook-archive-dead-hold"),
        ("webhook", "archive"),
        ("permissions", "notify on secret reading-room-webhook"),
        ("permissions", "watch_studies on topic dicom-exports"),
        ("delivery", "Pub/Sub calls notify"),
        ("delivery", "dead letters to dicom-outcomes-webhook-archive-dead"),
    }


@needs_terraform
def test_a_webhook_that_has_ended_is_named_until_it_has_another_url(
    workflows: tuple[FakeCloud, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cloud, path = workflows
    place = f"/storage/v1/b/{PROJECT}-dicom-state/o/webhooks%2Farchive.json"
    url = hashlib.sha256(WEBHOOKS["archive"]["url"].encode()).hexdigest()
    state = {"state": "gone", "time": "2026-11-24T10:00:00Z", "url_sha256": url}
    cloud.answers[place] = (200, state)
    ((check, subject, detail),) = failed(doctor(path, "--no-probe", capsys=capsys)[1])
    assert check == "webhook"
    assert subject == "archive"
    assert "410 Gone at 2026-11-24T10:00:00Z" in detail
    cloud.answers[place] = (200, {**state, "url_sha256": "of another URL"})
    assert failed(doctor(path, "--no-probe", capsys=capsys)[1]) == []


@needs_terraform
def test_a_secret_that_may_not_be_read_is_named(
    workflows: tuple[FakeCloud, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cloud, path = workflows
    cloud.allowed[("dicom-notify", f"projects/{PROJECT}/secrets/archive-webhook")] = set()
    ((check, subject, detail),) = failed(doctor(path, "--no-probe", capsys=capsys)[1])
    assert check == "permissions"
    assert subject == "notify on secret archive-webhook"
    assert detail == "missing: secretmanager.versions.access"


@needs_terraform
@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("filter", "", "has another filter"),
        ("pushConfig", {"pushEndpoint": "https://x/webhooks/a"}, "calls /webhooks/a"),
    ],
)
def test_a_wrong_subscription_for_requests_is_named(
    workflows: tuple[FakeCloud, Path],
    key: str,
    value: Any,
    wanted: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud, path = workflows
    _, subscription = cloud.answers[f"/v1/projects/{PROJECT}/subscriptions/dicom-outcomes-requests"]
    subscription[key] = value
    ((_, subject, detail),) = failed(doctor(path, "--no-probe", capsys=capsys)[1])
    assert subject == "dicom-outcomes-requests"
    assert wanted in detail


@needs_terraform
def test_what_the_search_page_needs_for_exports_and_uploads_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = FakeCloud(terraform.plan(**PAGE))
    path = tmp_path / "system.json"
    path.write_text(json.dumps(cloud.system_file()))
    status, findings = doctor(path, "--no-probe", capsys=capsys)
    cloud.close()
    assert status == 0
    assert failed(findings) == []
    assert {(f["check"], f["subject"]) for f in findings} >= {
        ("subscription", "dicom-outcomes-requests"),
        ("permissions", f"search on bucket {PROJECT}-dicom-state"),
        ("permissions", f"search on bucket {PROJECT}-dicom-landing"),
    }
