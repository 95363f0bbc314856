"""python -m infra.local COMMAND."""

import sys

from infra.local.cli import main

if __name__ == "__main__":
    sys.exit(main())
