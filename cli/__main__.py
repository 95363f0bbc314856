"""`python -m cli` is `dicom-functions`."""

import sys

from cli.errors import not_installed


def main() -> int:
    """Run a command; returns the exit status. Without the packages, says how to install them."""
    try:
        from cli import app
    except ModuleNotFoundError as error:
        print(f"error: {not_installed(error)}", file=sys.stderr)
        return 2
    return app.main()


if __name__ == "__main__":
    sys.exit(main())
