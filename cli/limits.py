"""What of a probe's way a system's settings close. Standard library alone: deploy.sh runs it where
nothing is installed."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Limits:
    """Which steps of a probe are not possible, and where it leaves something.

    Args:
        search: why an operator's call of search would be refused; empty: it would not.
        delete: why what has just been stored cannot be deleted; empty: it can.
        moved: `gs://bucket/prefix` that uploads may be moved to; empty: they are not.
    """

    search: str = ""
    delete: str = ""
    moved: str = ""

    @classmethod
    def of(cls, environments: Mapping[str, Mapping[str, str]], search_ingress: str) -> Self:
        """From the functions' environment variables, by function."""
        search = ""
        if search_ingress != "ALLOW_ALL":
            search = f"search_ingress is {search_ingress}: it cannot be called from here"
        elif environments.get("search", {}).get("SEARCH_CALLERS"):
            search = "it takes callers in SEARCH_CALLERS only, with tokens for SEARCH_AUDIENCE"
        delete = ""
        hours = environments.get("delete_resource", {}).get("DELETE_MIN_AGE_HOURS", "")
        if hours.strip("0"):
            delete = f"DELETE_MIN_AGE_HOURS is {hours}"
        moved = environments.get("store_upload", {}).get("MOVE_DESTINATION", "")
        return cls(search, delete, moved)


def main() -> None:
    """`python3 -m cli.limits FILE`: a line `NAME REASON` for each limit of the system that
    deploy.sh wrote down."""
    system: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    for name, text in asdict(Limits.of(system["environments"], system["search_ingress"])).items():
        if text:
            print(name, text)


if __name__ == "__main__":
    main()
