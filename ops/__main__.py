"""`python -m ops COMMAND …`: what operators do, on this machine's system and on a deployed one."""

import importlib
import sys
from typing import Final

# A command is a module of this package with `main(arguments) -> exit status`.
COMMANDS: Final = {
    "doctor": "check a system from its buckets to a scan's way through it, and say how to mend what is wrong",
    "reconcile": "publish again what lies in the landing bucket without an outcome",
    "replay": "bring back what is in quarantine, or deliver dead letters again",
}

_INSTALL: Final = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt, then .venv/bin/python -m ops"


def main(arguments: list[str] | None = None) -> int:
    """Hand over to the command's module.

    Returns:
        0 done, 1 it found or met something wrong, 2 not understood.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in COMMANDS:
        try:
            module = importlib.import_module(f"ops.{name}")
        except ModuleNotFoundError as error:
            print(f"{error.name} is not installed here: {_INSTALL}", file=sys.stderr)
            return 2
        return int(module.main(rest))
    lines = [f"  {command:<10} {text}" for command, text in COMMANDS.items()]
    usage = "\n".join(["usage: python -m ops COMMAND [--help]", "", *lines])
    print(usage, file=sys.stdout if name in ("-h", "--help") else sys.stderr)
    return 0 if name in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
