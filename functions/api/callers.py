"""Who may call the functions `search` and `commands`: decided here for both.

1. Cloud Run IAM lets a request through to the function, or does not (infra/gcp/access.tf).
2. Targets in OPEN need no token; nor does OPTIONS, which browsers send without credentials and only
   `search` answers.
3. Everything else needs an ID token (id_tokens.py) of a caller in SEARCH_CALLERS or
   COMMANDS_CALLERS. If the list is empty, everyone may call, without a token.

What a listed caller may do is limited by search/qidors.py (searches), search/access.py (studies)
and commands/limits.py (commands, and how many in a minute).
"""

from collections.abc import Collection
from typing import Final

from functions.api.id_tokens import CallerError, IdTokens
from functions.common.errors import SettingsError
from functions.common.settings import COMMANDS, SEARCH

# Needs no caller, because it contains nothing of the DICOM store or of a request: kinds of target
# (search/targets.py), and paths.
OPEN: Final = {
    SEARCH: ("asset",),
    COMMANDS: ("/openapi.json",),
}
EVERYONE: Final = ""


class Callers:
    """The callers of one function, identified by their ID tokens; safe to share between threads.

    Args:
        function: SEARCH or COMMANDS.
        listed: addresses and subjects, in lower case; empty: everyone.
        audiences: the audiences that tokens may have.
        keys_url: where Google publishes the keys for its tokens.

    Raises:
        SettingsError: callers are listed without an audience.
    """

    def __init__(
        self,
        function: str,
        listed: Collection[str],
        audiences: tuple[str, ...],
        keys_url: str,
    ) -> None:
        if listed and not audiences:
            name = function.upper()
            raise SettingsError(
                f"{name}_AUDIENCE is not set: {name}_CALLERS needs the audience of the tokens"
            )
        self._open = OPEN[function]
        self._listed = listed
        self._tokens = IdTokens(audiences, keys_url)

    def identify(self, target: str, authorization: str) -> str:
        """The caller: an address or subject of the list, or EVERYONE if no caller is needed.

        Args:
            target: the kind of target or path, as in OPEN.
            authorization: the header; may be empty.

        Raises:
            CallerError: unauthenticated; forbidden, for a caller who is not on the list;
                unavailable, when Google's keys cannot be fetched.
        """
        if not self._listed or target in self._open:
            return EVERYONE
        for name in self._tokens.names(authorization):
            if name in self._listed:
                return name
        raise CallerError("forbidden", "this caller is not on the list")
