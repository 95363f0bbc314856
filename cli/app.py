"""The command line: its commands, and how errors are printed.

The file of a command is imported only when the command is called or its help is shown.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from cli.errors import CliError, StoppedError, not_installed
from cli.text import shown

NAME: Final = "dicom-functions"
# Each command: the file it is in, and its line in the list of commands.
COMMANDS: Final = {
    "run": ("run", "Start the whole system on this machine, with a demo."),
    "demo": ("run", "Start a separate system, run the demo, and stop."),
    "viewer": ("viewer", "Start the OHIF viewer for the stored studies."),
    "upload": ("upload", "Upload files and show the outcome of each."),
    "search": ("search", "Search the DICOM store."),
    "export": ("orders", "Export a study, series or instance to a bucket."),
    "delete": ("orders", "Delete a study, series or instance."),
    "outcomes": ("outcomes", "Show the latest outcomes, or follow new ones."),
    "listen": ("listen", "Receive webhooks on this machine."),
    "quarantine": ("quarantine", "Show objects that could not be stored."),
    "dead-letters": ("dead_letters", "Show messages that failed too often."),
    "doctor": ("doctor", "Check a system and say how to fix it."),
    "reconcile": ("reconcile", "Process again what has no outcome."),
    "replay": ("replay", "Try quarantine or dead letters again."),
    "conformance": ("conformance.command", "Test how a real DICOM store behaves."),
    "env": ("env", "Print the environment for gcloud."),
}
_COMPLETION: Final = f"""
\b
Completion for your shell (bash, zsh or fish):
  eval "$(_DICOM_FUNCTIONS_COMPLETE=bash_source {NAME})"
"""


class Commands(click.Group):
    """A group that imports each command only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command to call; for an unknown name, the error suggests similar ones."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def version() -> str:
    """The version of this project, as installed."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@click.group(
    cls=Commands, epilog=_COMPLETION, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(version(), prog_name=NAME)
def app() -> None:
    """Start, use and maintain DICOM Functions: cloud functions around a DICOM store.

    Commands use the system that runs on this machine; if none is running, the one that was deployed
    from this folder. --system chooses another one.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 success, 1 something is wrong, 2 wrong usage or no system, 130 Ctrl-C.
    """
    try:
        status: int = app.main(arguments, prog_name=NAME, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        _print_usage(error)
        return error.exit_code
    except click.Abort:
        print("stopped", file=sys.stderr)
        return 130
    except StoppedError as error:
        print(shown(str(error)), file=sys.stderr, flush=True)
        return error.status
    except CliError as error:
        return _failed(str(error), error.status)
    except ModuleNotFoundError as error:
        return _failed(not_installed(error), 2)
    except Exception as error:
        from cli.clients import explained

        known = explained(error)
        if known is None:
            raise
        return _failed(str(known), known.status)
    return status


def _print_usage(error: click.ClickException) -> None:
    context: Any = getattr(error, "ctx", None)
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
    _failed(error.format_message(), error.exit_code)


def _failed(message: str, status: int) -> int:
    print(f"error: {shown(message)}", file=sys.stderr, flush=True)
    return status
