"""python -m infra.local.function --target NAME --source FILE: one function on this machine.

It is served as by `functions-framework --target NAME --source FILE`, but answers only this
machine's own programs and pages.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import functions_framework
from functions_framework._http import create_server

from infra.local.callers import LOOPBACK, Callers, Guard


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.function",
        description=__doc__,
    )
    parser.add_argument("--target", required=True, help="name of the function")
    parser.add_argument(
        "--source",
        required=True,
        type=Path,
        help="file that defines it",
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="address to listen on (%(default)s)",
    )
    parser.add_argument("--port", type=int, default=8080, help="port (%(default)s)")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web origin whose pages may call it too; may be repeated",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve until stopped."""
    options = _options(argv)
    create_app: Any = functions_framework.create_app
    app = create_app(options.target, str(options.source))
    callers = Callers(options.host, origins=options.allow_origin)
    app.wsgi_app = Guard(app.wsgi_app, callers)
    server = create_server(app, debug=False)  # type: ignore[no-untyped-call]
    server.run(options.host, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
