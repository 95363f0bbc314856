"""Google's keys while they cannot be fetched; the keys are the tests' own, from a local server."""

import pytest

from functions.api.id_tokens import CallerError, IdTokens
from tests.search.kit import Answer, fake_store
from tests.search.test_callers import AUDIENCE, Signer


def test_keys_that_cannot_be_fetched_are_not_fetched_for_each_token() -> None:
    with fake_store() as keys:
        received = keys.answers(Answer(status=503))
        tokens = IdTokens((AUDIENCE,), f"{keys.url}/certs")
        signer = Signer("key-1")
        for number in range(3):
            signer.key_id = f"key-{number}"
            with pytest.raises(CallerError, match="unavailable"):
                tokens.names(f"Bearer {signer.token()}")
    assert len(received) == 1
