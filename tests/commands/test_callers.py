"""Who may send which commands: ID tokens signed with the tests' own key."""

import json
from collections.abc import Iterator

import pytest

from functions.api.callers import Callers
from functions.common.errors import SettingsError
from functions.common.settings import COMMANDS
from tests.commands.conftest import EXPORT, Place, commands_place
from tests.search.kit import Answer, fake_store
from tests.search.test_callers import Signer

AUDIENCE = "https://search.example.org"  # that of Signer's tokens
CALLERS = {"reader@example.org": ["exports"], "robot@p.iam.gserviceaccount.com": ["deletes"]}


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("key-1")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Iterator[Place]:
    with fake_store() as keys:
        keys.answers(Answer(body=json.dumps({signer.key_id: signer.certificate}).encode()))
        with commands_place(
            tmp_path_factory.mktemp("guarded"),
            COMMANDS_CALLERS=json.dumps(CALLERS),
            COMMANDS_AUDIENCE=AUDIENCE,
            COMMANDS_PER_MINUTE="5",
            ID_TOKEN_KEYS_URL=f"{keys.url}/certs",
        ) as place:
            yield place


def by(signer: Signer, email: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {signer.token(email=email)}"}


def test_a_caller_gives_the_commands_on_its_list(guarded: Place, signer: Signer) -> None:
    reader = by(signer, "reader@example.org")
    assert guarded.post("/exports", EXPORT, **reader).status_code == 202
    assert guarded.post("/deletes", {"path": "studies/1.2"}, **reader).status_code == 403


def test_nobody_and_strangers_give_none(guarded: Place, signer: Signer) -> None:
    assert guarded.post("/exports", EXPORT).status_code == 401
    stranger = by(signer, "stranger@example.org")
    assert guarded.post("/exports", EXPORT, **stranger).status_code == 403


def test_the_description_needs_no_caller(guarded: Place) -> None:
    assert guarded.get("/openapi.json").status_code == 200


def test_a_caller_without_a_token_does_not_find_a_request(guarded: Place) -> None:
    assert guarded.get("/requests/mine").status_code == 401


def test_callers_without_an_audience_are_a_mistake_that_is_reported_at_once() -> None:
    with pytest.raises(SettingsError, match="COMMANDS_AUDIENCE is not set"):
        Callers(COMMANDS, CALLERS, (), "https://example.org/certs")


def test_a_caller_sees_its_own_requests_only(guarded: Place, signer: Signer) -> None:
    reader = by(signer, "reader@example.org")
    robot = by(signer, "robot@p.iam.gserviceaccount.com")
    guarded.post("/exports", {**EXPORT, "request_id": "mine"}, **reader)
    assert guarded.get("/requests/mine", **reader).status_code == 200
    assert guarded.get("/requests/mine", **robot).status_code == 404


def test_too_many_commands_in_a_minute_are_refused(guarded: Place, signer: Signer) -> None:
    robot = by(signer, "robot@p.iam.gserviceaccount.com")
    command = {"path": "studies/1.2", "request_id": "often"}
    answers = [guarded.post("/deletes", command, **robot) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [202] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
