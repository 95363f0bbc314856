"""Which studies a caller sees. SEARCH_CALLERS gives a caller fixed filters, such as PatientID=P1;
the handler looks them up. Without filters, a caller sees everything. With filters:

    a search              has them too; a parameter that contradicts one is refused (qidors.py)
    a retrieve, an        only of a study that matches them all, which is checked here; else
        export, a search  `not_found`, as for a study that does not exist
        within a study
    an upload             is refused: its outcome would reveal what the store has (uploading.py)
"""

import json
from collections.abc import Mapping
from typing import Final

from functions.common.deadline import Deadline
from functions.common.resources import Resource
from functions.search.searching import Searcher
from functions.search.upstream import refused_by_store

FixedFilters = Mapping[str, str]
_REMEMBERED_S: Final = 30.0
_REMEMBERED_STUDIES: Final = 1024


class Access:
    """Which studies match a caller's filters; remembered for a while, because a viewer requests
    each image of a study."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._allowed: dict[tuple[str, str], Deadline] = {}

    def check(self, resource: Resource, fixed: FixedFilters) -> None:
        """Check that the caller may see this study, series or instance.

        Args:
            fixed: the caller's filters; empty: everything may be seen.

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
