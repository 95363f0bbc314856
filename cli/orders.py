"""`export` and `delete`: publish a command, and wait for its outcome."""

import json
import sys
import uuid
from collections.abc import Mapping
from typing import Any, Final

import click

from cli.clients import Clients
from cli.errors import CliError, StoppedError, exit_status
from cli.numbers import Whole
from cli.options import OUTCOME_COLUMNS, outcome_item, progress, system_option, wait_options
from cli.output import Format, Item, Listing, format_option, say
from cli.text import counted, shown, size_text
from cli.watch import Outcome, Watch, is_good
from functions.api.formats import FORMATS
from functions.common.errors import PermanentError
from functions.common.resources import GcsPrefix, Resource, is_uid
from functions.common.settings import DELETE, EXPORT

_PATH: Final = "studies/UID[/series/UID[/instances/UID]]"
_TOPICS: Final = {EXPORT: "exports", DELETE: "deletes"}
_WRITTEN: Final = ("exported", "partial")  # outcomes of an export that wrote something


@click.command()
@click.argument("path", required=False, metavar="[PATH]")
@click.option(
    "--query", metavar="QUERY", help="Export the studies that match a search: PatientID=4MR1."
)
@click.option(
    "--to",
    "destination",
    metavar="gs://BUCKET/FOLDER",
    help="The destination. Without it: a new folder in the system's export bucket.",
)
@click.option(
    "--as",  # an export's `format`; `--format` is how the answer is printed
    "kind",
    type=click.Choice(list(FORMATS)),
    help="The format to write. Without it: dicom.",
)
@click.option(
    "--transfer-syntax",
    metavar="UID",
    help="Transcode DICOM files to this transfer syntax; * keeps them as stored.",
)
@wait_options
@format_option
@system_option
def export(
    clients: Clients,
    path: str | None,
    query: str | None,
    destination: str | None,
    kind: str | None,
    transfer_syntax: str | None,
    no_wait: bool,
    timeout: float,
    output: Format,
) -> int:
    """Export a study, series or instance to a bucket.

    PATH is studies/UID[/series/UID[/instances/UID]]; --query exports several studies.
    """
    request_id = _new_id()
    place = destination or f"gs://{clients.system.buckets['export']}/{request_id}"
    command = {
        **_what(path, query),
        "destination": str(_destination(place)),
        "format": kind,
        "transfer_syntax": transfer_syntax,
        "request_id": request_id,
    }
    order = Order(clients, EXPORT, command)
    if no_wait:
        return order.leave(output)
    outcome = order.wait(timeout, output)
    if output.for_people and outcome["outcome"] in _WRITTEN:
        say(f"to {shown(place)}{_on_this_machine(clients, place)}")
    return exit_status(is_good(outcome))


@click.command()
@click.argument("path", required=False, metavar="[PATH]")
@click.option(
    "--query",
    metavar="QUERY",
    help="Delete the studies that match a search: PatientID=4MR1. Needs --max-studies.",
)
@click.option(
    "--max-studies",
    type=Whole(min=1),
    metavar="N",
    help="Delete nothing if the query finds more studies.",
)
@click.option(
    "--stored-before",
    metavar="TIME",
    help="Delete nothing if any of it was stored later: 2026-01-31T00:00:00Z.",
)
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@wait_options
@format_option
@system_option
def delete(
    clients: Clients,
    path: str | None,
    query: str | None,
    max_studies: int | None,
    stored_before: str | None,
    dry_run: bool,
    yes: bool,
    no_wait: bool,
    timeout: float,
    output: Format,
) -> int:
    """Delete a study, series or instance from the DICOM store.

    PATH is studies/UID[/series/UID[/instances/UID]]; --query deletes several studies.
    """
    what = _what(path, query)
    if query is not None and max_studies is None:
        raise CliError("--query needs --max-studies N, the most studies that it may delete")
    if not (yes or dry_run or clients.system.local) and sys.stdin.isatty():
        named = shown(" ".join(what.values()))
        click.confirm(f"Delete {named} in {clients.system.where}?", abort=True)
    command = {
        **what,
        "max_studies": max_studies,
        "stored_before": stored_before,
        "dry_run": dry_run or None,
        "request_id": _new_id(),
    }
    order = Order(clients, DELETE, command)
    if no_wait:
        return order.leave(output)
    return exit_status(is_good(order.wait(timeout, output)))


class Order:
    """One command, published for a function.

    Args:
        clients: of the system.
        function: that processes the command.
        command: its keys; those that are None are left out.
    """

    def __init__(self, clients: Clients, function: str, command: Mapping[str, Any]) -> None:
        self._clients = clients
        self._function = function
        self._command = {key: value for key, value in command.items() if value is not None}
        self._id = str(command["request_id"])

    def leave(self, output: Format) -> int:
        """Publish it, and print its request ID; the exit status."""
        self._publish()
        if output.for_people:
            say(f"published as {self._id}; the outcome will be in dicom-functions outcomes")
        else:
            request = Item.of({"request_id": self._id})
            Listing(output).print([request], ("request_id",))
        return 0

    def wait(self, timeout_s: float, output: Format) -> Outcome:
        """Publish it, wait for its outcome and print that.

        Raises:
            CliError: there was no outcome in time.
            StoppedError: Ctrl-C.
        """
        outcome = None
        try:
            with Watch(self._clients, f'attributes.function = "{self._function}"') as watch:
                self._publish()
                with progress(output) as bar:
                    bar.add_task(f"waiting for {self._id}", total=None)
                    outcome = self._own(watch, timeout_s)
        except KeyboardInterrupt:
            raise StoppedError(f"stopped waiting; {self._continues()}") from None
        if outcome is None:
            raise CliError(f"no outcome within {timeout_s:.0f} s; {self._continues()}")
        Listing(output).print([outcome_item(outcome)], OUTCOME_COLUMNS)
        if output.for_people:
            say(_summary(outcome))
        return outcome

    def _own(self, watch: Watch, timeout_s: float) -> Outcome | None:
        for outcome in watch.until(timeout_s):
            if outcome.get("request_id") == self._id and not outcome.get("member"):
                return outcome
        return None

    def _publish(self) -> None:
        topic = self._clients.system.topic(_TOPICS[self._function])
        self._clients.publish(topic, json.dumps(self._command).encode(), {})

    def _continues(self) -> str:
        return f"{self._id} continues, and its outcome will be in dicom-functions outcomes"


def _summary(outcome: Outcome) -> str:
    counts = outcome.get("counts")
    word = shown(outcome["outcome"])
    if not isinstance(counts, dict):
        return word
    numbers = {key: value for key, value in counts.items() if isinstance(value, int)}
    size = numbers.pop("bytes", 0) or outcome.get("bytes")
    text = f"{word}: {counted(numbers)}"
    if size:
        text += f", {size_text(size)}"
    return text


def _what(path: str | None, query: str | None) -> dict[str, str]:
    """The `path` or the `query` of a command.

    Raises:
        CliError: neither, both, or a path of another form.
    """
    if (path is None) == (query is None):
        raise CliError(f"give either PATH ({_PATH}) or --query")
    if query is not None:
        return {"query": query}
    assert path is not None
    try:
        return {"path": str(Resource.parse(path))}
    except PermanentError as error:
        message = f"PATH must be {_PATH}, not {path}"
        if is_uid(path):
            message += f"; did you mean studies/{path}?"
        raise CliError(message) from error


def _destination(text: str) -> GcsPrefix:
    try:
        return GcsPrefix.parse(text)
    except (ValueError, PermanentError) as error:
        raise CliError(f"--to must be gs://BUCKET/FOLDER, not {text}") from error


def _on_this_machine(clients: Clients, place: str) -> str:
    prefix = _destination(place)
    folder = clients.system.folder_of(prefix.bucket)
    if folder is None:
        return ""
    return f", on this machine {shown(str(folder / prefix.prefix))}"


def _new_id() -> str:
    return f"cli-{uuid.uuid4().hex[:12]}"
