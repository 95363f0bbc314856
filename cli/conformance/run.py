"""The probe from beginning to end: confirm, make a store, ask the questions, delete the store."""

import datetime
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.conformance import deleting, report, retrieving, searching, storing
from cli.conformance.client import LABEL, ConformanceError, Probe, Reply, Session
from cli.conformance.question import QUESTIONS, NotSeenError, Question
from cli.conformance.report import Row

ENDPOINT: Final = "https://healthcare.googleapis.com"
SAME, DIFFERENT, CANNOT = 0, 1, 2  # exit status
# Importing them adds their questions to the list.
_ASKED: Final = (storing, searching, retrieving, deleting)
_EXPLANATION: Final = """\
This makes a new, empty DICOM store in
  {dataset}
at {endpoint}, stores some hundred small synthetic instances in it,
asks {count} questions about them, and deletes the store. It reads and deletes nothing else.
It takes a few minutes, and costs as much as some hundred requests.
"""


@dataclass(frozen=True)
class Options:
    """What the caller wants.

    Attributes:
        dataset: projects/P/locations/L/datasets/D, where the store is made.
        endpoint: the API's root, without a version.
        version: v1 or v1beta1.
        token: a bearer token in place of Application Default Credentials.
        yes: do not ask before the store is made.
        as_json: print the report as JSON instead of the table.
        report: the file to write the report to; None: none.
        only: names of the questions to ask; empty: all.
    """

    dataset: str
    endpoint: str = ENDPOINT
    version: str = "v1"
    token: str = ""
    yes: bool = False
    as_json: bool = False
    report: Path | None = None
    only: tuple[str, ...] = ()


def run(options: Options, is_stopped: Callable[[], bool]) -> int:
    """Ask every question and show the answers.

    Args:
        is_stopped: whether to stop before the next question.

    Returns:
        0 when every answer is the assumed one, 1 when one is not, 2 when it could not run.
    """
    try:
        questions = _chosen(options.only)
        if not options.yes and not _agreed(options, len(questions)):
            _say("nothing was changed")
            return CANNOT
        session = Session(options.endpoint, options.token)
        with _new_store(session, options) as probe:
            rows = list(_answered(probe, questions, is_stopped))
        _show(rows, options)
    except ConformanceError as error:
        _say(f"error: {error}")
        return CANNOT
    except KeyboardInterrupt:
        _say("stopped")
        return CANNOT
    if all(row.verdict == report.SAME for row in rows):
        return SAME
    return DIFFERENT


def _chosen(only: tuple[str, ...]) -> list[Question]:
    """The questions with these names, or all of them, in the order of the fact sheet."""
    questions = sorted(QUESTIONS, key=_place)
    unknown = set(only) - {question.name for question in questions}
    if unknown:
        raise ConformanceError(f"there is no question named {', '.join(sorted(unknown))}")
    return [question for question in questions if not only or question.name in only]


def _place(question: Question) -> list[int]:
    """Where a question's section is in the fact sheet."""
    return [int(part) for part in question.section.split(".")]


def _agreed(options: Options, count: int) -> bool:
    """Whether the person at the terminal says yes."""
    _say(_EXPLANATION.format(dataset=options.dataset, endpoint=options.endpoint, count=count))
    if not sys.stdin.isatty():
        raise ConformanceError("there is no terminal to ask for confirmation: use --yes")
    print("Continue? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _new_store(session: Session, options: Options) -> Iterator[Probe]:
    """A new store, deleted at the end, whatever happens.

    Raises:
        ConformanceError: it cannot be made, or cannot be deleted.
    """
    now = datetime.datetime.now(datetime.UTC)
    store_id = f"conformance-{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
    name = f"{options.dataset}/dicomStores/{store_id}"
    path = f"{options.version}/{options.dataset}/dicomStores?dicomStoreId={store_id}"
    headers = {"Content-Type": "application/json"}
    # If the answer is lost the store may exist; only a refusal proves that it does not.
    made = True
    try:
        body = json.dumps({"labels": {LABEL: store_id}}).encode()
        created = session.send("POST", path, body=body, headers=headers)
        made = not 400 <= created.status < 500
        if created.status != 200:
            raise ConformanceError(_why_not_made(created))
        _say(f"made {store_id}")
        yield Probe(session, options.version, name)
    finally:
        if made:
            _delete(session, f"{options.version}/{name}", store_id)


def _why_not_made(reply: Reply) -> str:
    text = f"the DICOM store cannot be made (status {reply.status})"
    if reply.status in (401, 403):
        return f"{text}: the credentials need roles/healthcare.dicomStoreAdmin on the dataset"
    if reply.status == 404:
        return f"{text}: does the dataset exist?"
    return text


def _delete(session: Session, path: str, store_id: str) -> None:
    reply = session.send("DELETE", path)
    if reply.status == 200:
        _say(f"deleted {store_id}")
    elif reply.status != 404:
        raise ConformanceError(
            f"{store_id} was not deleted (status {reply.status}); delete it with: "
            f"gcloud healthcare dicom-stores delete {store_id}"
        )


def _answered(
    probe: Probe, questions: list[Question], is_stopped: Callable[[], bool]
) -> Iterator[Row]:
    """Each question with its answer, one after the other."""
    secrets = {probe.name: "STORE", probe.dataset: "DATASET"}
    project = probe.dataset.split("/")[1]
    for number, question in enumerate(questions, 1):
        if is_stopped():
            raise KeyboardInterrupt
        verdict, found = _answer_to(probe, question)
        found = report.scrubbed(found, {**secrets, f"projects/{project}/": "projects/PROJECT/"})
        _say(f"{number}/{len(questions)}  {question.name}: {verdict}")
        yield Row(question, verdict, found)


def _answer_to(probe: Probe, question: Question) -> tuple[str, object]:
    """The verdict and the answer."""
    try:
        found = question.ask(probe)
    except NotSeenError as error:
        return report.NOT_SEEN, str(error)
    # An answer in an unexpected form.
    except (ConformanceError, LookupError, TypeError, ValueError, AttributeError) as error:
        return report.FAILED, f"{type(error).__name__}: {error}"
    if found == question.assumed:
        return report.SAME, found
    return report.DIFFERENT, found


def _show(rows: list[Row], options: Options) -> None:
    now = datetime.datetime.now(datetime.UTC)
    about = {
        "endpoint": options.endpoint,
        "version": options.version,
        "time": now.isoformat(timespec="seconds"),
        "summary": report.summary(rows),
    }
    text = json.dumps(report.document(rows, about), indent=2)
    if options.report:
        try:
            options.report.write_text(text + "\n")
        except OSError as error:
            raise ConformanceError(f"{options.report} cannot be written") from error
        _say(f"the report is in {options.report}")
    if not options.as_json:
        text = report.table(rows)
    print(text, flush=True)


def _say(text: str) -> None:
    """Print a line of progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)
