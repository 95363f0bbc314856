"""The command line: which commands there are, and how an error ends.

A command's file is imported when it is called or asked for help, so that the others cost nothing.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from cli.errors import CliError, not_installed
from cli.text import shown

NAME: Final = "dicom-functions"
# A command, the file it is in, and what the list of commands says of it.
COMMANDS: Final = {
    "run": ("run", "Start the whole system on this machine, show it at work, stay up."),
    "demo": ("run", "Start it apart from whatever runs, show it at work, stop."),
    "viewer": ("viewer", "Open the OHIF viewer on what is stored."),
    "upload": ("upload", "Write files to the landing bucket and show what becomes of each."),
    "search": ("search", "Search the DICOM store."),
    "export": ("orders", "Write a study, a series or an instance to a bucket."),
    "delete": ("orders", "Delete a study, a series or an instance."),
    "outcomes": ("outcomes", "Show what became of the inputs."),
    "listen": ("listen", "Receive webhooks here, and print those that verify."),
    "quarantine": ("quarantine", "What can never be stored, and why."),
    "dead-letters": ("dead_letters", "What failed too often and waits for you."),
    "doctor": ("doctor", "Check a system, and say how to fix what is wrong."),
    "reconcile": ("reconcile", "Publish again what has no outcome."),
    "replay": ("replay", "Bring back what is in quarantine, or deliver dead letters again."),
    "conformance": ("conformance.command", "Ask a real DICOM store what no source says."),
    "env": ("env", "Print the environment for gcloud and client libraries."),
}
_COMPLETION: Final = f"""
\b
Completion for your shell (bash, zsh or fish):
  eval "$(_DICOM_FUNCTIONS_COMPLETE=bash_source {NAME})"
"""


class Commands(click.Group):
    """A group that imports a command when it is needed."""

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
        """The command that is called; an unknown one is answered with those like it."""
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
    """Event-driven functions around a DICOM store: start them here, use them, look after them.

    Commands work on the system that runs on this machine, else on the one deployed from here, or on
    the one that --system names.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Returns:
        0 done, 1 it found or met something wrong, 2 not understood or no system, 130 Ctrl-C.
    """
    try:
        status: int = app.main(arguments, prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        _print_usage(error)
        return error.exit_code
    except click.Abort:
        print("stopped", file=sys.stderr)
        return 130
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
