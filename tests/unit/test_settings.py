import json

import pytest

from functions.common.errors import SettingsError
from functions.common.settings import SETTINGS, STORE, Setting, Settings
from tests.unit.test_architecture import ENVIRONMENT, ROOT


def load(function: str = STORE, **environ: str) -> Settings:
    return Settings.load(function, {**ENVIRONMENT, **environ})


def test_secrets_are_not_shown_where_settings_are() -> None:
    shown = repr(load("notify", WEBHOOK_SECRET_A="whsec_c2VjcmV0"))
    assert "webhook_private_addresses" in shown
    assert "whsec" not in shown


def test_every_default_is_valid_and_every_setting_has_a_help_text() -> None:
    for setting in SETTINGS:
        assert setting.help.endswith((".", "`")), setting.name
        if setting.default is not None:
            setting.parse(setting.default)


@pytest.mark.parametrize(
    "setting", [s for s in SETTINGS if s.default is None], ids=lambda s: s.name
)
def test_a_required_setting_is_required_by_its_functions_only(setting: Setting) -> None:
    name = setting.name
    functions = setting.used_by
    without = {key: value for key, value in ENVIRONMENT.items() if key != name}
    for function in ("store_upload", "delete_resource", "export_resource", "search"):
        if function in functions:
            with pytest.raises(SettingsError, match=f"^{name} is not set: "):
                Settings.load(function, without)
        else:
            Settings.load(function, without)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DICOM_STORE", "projects/p"),
        ("HEALTHCARE_ENDPOINT", "ftp://x"),
        ("HEALTHCARE_ENDPOINT", "http://x/ y"),
        ("PUBSUB_EMULATOR_HOST", "http://x:1"),
        ("OUTCOMES_TOPIC", "outcomes"),
        ("BUDGET_S", "0"),
        ("BUDGET_S", "8m"),
        ("LANDING_BUCKET", "gs://landing"),
        ("STORAGE_CLASS", "FROZEN"),
        ("CONFLICT_POLICY", "a/=b=keep,c"),
        ("PAIR_WAIT_S", "7201"),
        ("SEARCH_VIEWER_URL", "javascript:alert({study})"),
        ("SEARCH_VIEWER_URL", "https://viewer.example.org/"),
    ],
)
def test_a_malformed_setting_is_named_and_its_value_is_not_shown(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} takes ") as raised:
        load(**{name: text})
    assert text not in str(raised.value) or text == "0"


def test_a_malformed_setting_of_another_function_is_named_too() -> None:
    with pytest.raises(SettingsError, match=r"^PAIR_WAIT_S takes "):
        load("search", PAIR_WAIT_S="soon")


def test_half_a_pair_is_delivered_for_longer_than_it_may_wait() -> None:
    topology = json.loads((ROOT / "infra/topology.json").read_text())
    delivery = topology["delivery"]
    attempts = topology["functions"][STORE]["max_delivery_attempts"]
    waits = [
        min(delivery["minimum_backoff_s"] * 2**n, delivery["maximum_backoff_s"])
        for n in range(attempts - 1)
    ]
    assert load(PAIR_WAIT_S="7200").pair_wait_s < sum(waits)


@pytest.mark.parametrize("bucket", ["landing", "quarantine", "state"])
def test_objects_are_not_moved_into_a_bucket_that_has_another_purpose(bucket: str) -> None:
    own = {f"{name.upper()}_BUCKET": name for name in ("landing", "quarantine", "state")}
    with pytest.raises(SettingsError, match=r"^MOVE_DESTINATION"):
        load(**own, MOVE_DESTINATION=f"gs://{bucket}/done", SOURCE_DISPOSITION="move")


def test_a_caller_who_is_listed_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^SEARCH_CALLERS"):
        load("search", SEARCH_CALLERS='{"A@b.org": {"PatientID": "7"}, "a@b.org": {}}')


def test_by_prefix_the_longest_prefix_decides() -> None:
    rules = load(STORAGE_CLASS="STANDARD, research/=NEARLINE, research/old/=ARCHIVE").storage_class
    assert rules.of("scan.dcm") == "STANDARD"
    assert rules.of("research/x.dcm") == "NEARLINE"
    assert rules.of("research/old/x.dcm") == "ARCHIVE"
    assert load().storage_class.of("anything") == ""


def test_an_emulator_may_come_with_or_without_a_scheme() -> None:
    assert (
        load(STORAGE_EMULATOR_HOST="127.0.0.1:4443").storage_emulator_host
        == "http://127.0.0.1:4443"
    )
    assert (
        load(STORAGE_EMULATOR_HOST="http://127.0.0.1:4443/").storage_emulator_host
        == "http://127.0.0.1:4443"
    )
