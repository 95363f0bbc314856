"""Which steps of the probe a system's settings prevent. Needs only the standard library: deploy.sh
runs it before anything is installed."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Limits:
    """Which steps of a probe are impossible, and where it leaves objects.

    Args:
        search: why an operator may not call search; empty: they may.
        delete: why new instances cannot be deleted; empty: they can.
        moved: `gs://bucket/prefix` that uploads are moved to; empty: they are not moved.
    """

    search: str = ""
    delete: str = ""
    moved: str = ""

    @classmethod
    def of(cls, environments: Mapping[str, Mapping[str, str]], search_ingress: str) -> Self:
        """From the functions' environment variables, by function."""
        of_store = environments.get("store_upload", {})
        of_delete = environments.get("delete_resource", {})
        of_search = environments.get("search", {})
        search = ""
        if search_ingress != "ALLOW_ALL":
            search = f"search_ingress is {search_ingress}: it cannot be called from here"
        elif of_search.get("SEARCH_CALLERS"):
            search = "it accepts only callers in SEARCH_CALLERS, with tokens for SEARCH_AUDIENCE"
        delete = ""
        hours = of_delete.get("DELETE_MIN_AGE_HOURS", "")
        if hours.strip("0"):
            delete = f"DELETE_MIN_AGE_HOURS is {hours}"
        return cls(
            search=search,
            delete=delete,
            moved=of_store.get("MOVE_DESTINATION", ""),
        )


def main() -> None:
    """`python3 -m cli.limits FILE`: print a line `NAME REASON` for each limit of the system in
    deploy.sh's file."""
    system: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    limits = Limits.of(system["environments"], system["search_ingress"])
    for name, text in asdict(limits).items():
        if text:
            print(name, text)


if __name__ == "__main__":
    main()
