"""A caller who is limited to some data retrieves only studies that match the limits.

The limits are those of SEARCH_CALLERS (handler.py). The searches of such a caller have them as
filters (qidors.py).
"""

import json
from collections.abc import Mapping
from typing import Final

from functions.common.deadline import Deadline
from functions.common.resources import Resource
from functions.search.searching import Searcher
from functions.search.upstream import refused_by_store

Fixed = Mapping[str, str]
_REMEMBERED_S: Final = 30.0
_REMEMBERED_STUDIES: Final = 1024


class Access:
    """Which studies limited callers may see; remembered for a while, because a viewer requests each
    image of a study."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._allowed: dict[tuple[str, str], Deadline] = {}

    def check(self, resource: Resource, fixed: Fixed) -> None:
        """Check that the caller may see this study, series or instance.

        Args:
            fixed: the filters of all requests of the caller; empty: no limits.

        Raises:
            RefusedError: not_found, as for a study that does not exist; or as the store refuses.
        """
        if not fixed:
            return
        key = (json.dumps(fixed, sort_keys=True), resource.study)
        remembered = self._allowed.get(key)
        if remembered and remembered.remaining_s():
            return
        if not self._searcher.holds(resource.study, fixed):
            raise refused_by_store("not_found")
        if len(self._allowed) >= _REMEMBERED_STUDIES:
            self._allowed.clear()
        self._allowed[key] = Deadline(_REMEMBERED_S)
