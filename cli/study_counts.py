"""Modalities and counts for a viewer's list of studies; the DICOM store's searches lack them.

They come from searches for each study's series and instances, which is fast on one machine.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

Row = dict[str, Any]

_AT_ONCE: Final = 4
_STUDIES_MAX: Final = 101  # what OHIF requests at a time
_ROWS_MAX: Final = 5000
_STUDY: Final = "0020000D"
_MODALITY: Final = "00080060"
_MODALITIES: Final = "00080061"
_SERIES_COUNT: Final = "00201206"
_INSTANCE_COUNT: Final = "00201208"


def fill(studies: list[Row], search: Callable[[str], list[Row]]) -> None:
    """Add modalities and counts to the rows of a search for studies, except if a search failed.

    Args:
        search: the rows of a search, by its path and query.
    """

    def fill_one(study: Row) -> None:
        _fill_one(study, search)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # An error in a thread is raised here.
        list(pool.map(fill_one, studies[:_STUDIES_MAX]))


def _fill_one(study: Row, search: Callable[[str], list[Row]]) -> None:
    uid = study[_STUDY]["Value"][0]
    series = search(f"/studies/{uid}/series?limit={_ROWS_MAX}")
    instances = search(f"/studies/{uid}/instances?limit={_ROWS_MAX}")
    if not series or not instances:
        return
    modalities: set[str] = set()
    for row in series:
        attribute = row.get(_MODALITY, {})
        modalities.update(attribute.get("Value", []))
    study[_MODALITIES] = {"vr": "CS", "Value": sorted(modalities)}
    study[_SERIES_COUNT] = {"vr": "IS", "Value": [len(series)]}
    study[_INSTANCE_COUNT] = {"vr": "IS", "Value": [len(instances)]}
