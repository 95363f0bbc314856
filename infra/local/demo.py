"""The main job on real scans, step by step, each step's result checked."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.local import views
from infra.local.clients import Watch
from infra.local.running import Running, value

TIMEOUT_S = 120.0
PREFIX = "demo/"
# Of pydicom's bundled files: many modalities and transfer syntaxes; the four of `brain` are one
# study of three series.
SCANS = {
    "ct/head.dcm": "CT_small.dcm",
    "ct/thorax.dcm": "J2K_pixelrep_mismatch.dcm",
    "ct/chest.dcm": "693_J2KI.dcm",
    "mr/shoulder.dcm": "MR_small.dcm",
    "mr/brain/5641": "dicomdirtests/98892003/MR1/5641",
    "mr/brain/6273": "dicomdirtests/98892003/MR2/6273",
    "mr/brain/4467": "dicomdirtests/98892003/MR700/4467",
    "mr/brain/4528": "dicomdirtests/98892003/MR700/4528",
    "us/big-endian.dcm": "ExplVR_BigEnd.dcm",
    "us/colour.dcm": "examples_ybr_color.dcm",
    "us/palette.dcm": "examples_palette.dcm",
    "nm/lossy.dcm": "JPEG-lossy.dcm",
    "other/rle.dcm": "SC_rgb_rle.dcm",
    "other/deflated.dcm": "image_dfl.dcm",
    "ecg/heart.dcm": "waveform_ecg.dcm",
    "seg/liver.dcm": "liver_1frame.dcm",
    "sr/report.dcm": "reportsi.dcm",
    "rt/plan.dcm": "rtplan.dcm",
    "rt/dose.dcm": "rtdose.dcm",
}
BROKEN = (
    "us/cut-off.dcm",
    "examples_rgb_color.dcm",
    20_000,
)  # so many bytes of it, as when a transfer breaks
# Transfer syntaxes in few words, by UID.
SYNTAXES = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.2": "explicit big endian",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}


class DemoError(Exception):
    """A step's result is wrong; one line."""


@dataclass
class Scan:
    """One file of the demo."""

    name: str
    content: bytes
    modality: str
    syntax: str
    study: str
    series: str
    instance: str
    broken: bool = False
    generation: int = 0
    outcome: dict[str, Any] | None = field(default=None)


class Demo:
    """Store, find, export, compare, delete, and find no more.

    Args:
        running: the stack.
        console: where it is shown.
        check: raises when the stack can no longer go on; called while waiting.
    """

    def __init__(self, running: Running, console: Console, check: Callable[[], None]) -> None:
        self._running = running
        self._console = console
        self._check = check
        self._scans = list(load_scans())

    def run(self) -> None:
        """All steps.

        Raises:
            DemoError: a result is wrong, or did not come in time.
        """
        with self._running.watch() as watch:
            self._store(watch)
            studies = self._search()
            study = max(studies, key=lambda item: len(self._of(item)))
            self._export(watch, study)
            self._delete(watch, study)
        self._search(without=study)

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/bold]")

    def _of(self, study: str) -> list[Scan]:
        return [scan for scan in self._scans if scan.study == study and not scan.broken]

    def _store(self, watch: Watch) -> None:
        bucket = self._running.names["landing"]
        self._title(
            f"1. Drop {len(self._scans)} files in gs://{bucket}, one of them broken on purpose"
        )
        with Live(
            self._table(), console=self._console, refresh_per_second=8, vertical_overflow="visible"
        ) as live:
            for scan in self._scans:
                scan.generation = self._running.buckets.upload(bucket, scan.name, scan.content)
                self._note(watch.take(wait_s=0))
                live.update(self._table())
            for outcomes in self._waiting(watch):
                self._note(outcomes)
                live.update(self._table())
                if all(scan.outcome for scan in self._scans):
                    break
        if not self._console.is_terminal:
            self._console.print()
        for scan in self._scans:
            outcome = (scan.outcome or {}).get("outcome")
            if outcome not in (("rejected",) if scan.broken else ("stored", "duplicate")):
                raise DemoError(f"{scan.name} ended as {outcome}")
            if scan.broken:
                self._check_quarantine(scan)

    def _check_quarantine(self, scan: Scan) -> None:
        reason = (scan.outcome or {})["reason"]
        bucket, name = self._running.names["quarantine"], f"{reason}/{scan.name}"
        if self._running.buckets.download(bucket, name) != scan.content:
            raise DemoError(f"gs://{bucket}/{name} is not the broken file")
        self._console.print(f"The broken one is kept, with its reason: gs://{bucket}/{name}")

    def _note(self, outcomes: list[dict[str, Any]]) -> None:
        for outcome in outcomes:
            for scan in self._scans:
                if outcome.get("name") == scan.name and outcome.get("generation") == str(
                    scan.generation
                ):
                    scan.outcome = scan.outcome or outcome

    def _table(self) -> Table:
        table = Table(
            "object",
            "modality",
            "transfer syntax",
            "size",
            "outcome",
            "ms",
            "reason",
            box=None,
            pad_edge=False,
        )
        for scan in self._scans:
            outcome = scan.outcome or {}
            row = (
                scan.name,
                scan.modality,
                scan.syntax,
                views.size_text(len(scan.content)),
                views.word(scan.outcome),
            )
            table.add_row(*row, str(outcome.get("duration_ms", "")), str(outcome.get("reason", "")))
        return table

    def _search(self, without: str = "") -> list[str]:
        self._title(
            "4. Search again: the study is gone"
            if without
            else "2. Search: what the DICOM store has now"
        )
        items, _warning = self._running.search(
            "studies", [("limit", "1000"), *views.wanted("studies")]
        )
        found = {value(item, "0020000D"): item for item in items}
        ours = list(dict.fromkeys(scan.study for scan in self._scans if not scan.broken))
        expected = [study for study in ours if study != without]
        if missing := [study for study in expected if study not in found]:
            raise DemoError(
                f"{len(missing)} of {len(expected)} stored studies are not found, {missing[0]} for one"
            )
        if without in found:
            raise DemoError(f"{without} is still found")
        if not without:
            self._console.print(views.search_table("studies", [found[study] for study in expected]))
        self._console.print(
            f"{len(expected)} of {len(ours)} studies; [dim]GET {self._search_url()}/studies[/dim]"
        )
        return expected

    def _search_url(self) -> str:
        return str(self._running.state["endpoints"]["functions"]["search"])

    def _export(self, watch: Watch, study: str) -> None:
        prefix = f"demo/{uuid.uuid4().hex[:8]}"
        bucket = self._running.names["export"]
        destination = f"gs://{bucket}/{prefix}"
        self._title(
            f"3. Export one study of {len(self._of(study))} instances to {destination}, then delete it"
        )
        outcome = self._ask(
            watch, "exports", {"path": f"studies/{study}", "destination": destination}
        )
        if outcome["outcome"] != "exported":
            raise DemoError(f"the export ended as {outcome['outcome']}, {outcome.get('reason')}")
        for scan in self._of(study):
            name = f"{prefix}/{scan.study}/{scan.series}/{scan.instance}.dcm"
            if self._running.buckets.download(bucket, name) != scan.content:
                raise DemoError(
                    f"gs://{bucket}/{name} is not byte for byte the file that was dropped"
                )
        names = {
            item["name"].removeprefix(prefix + "/")
            for item in self._running.buckets.objects(bucket, prefix + "/")
        }
        if len(names) != len(self._of(study)) + 1 or "manifest.json" not in names:
            raise DemoError(
                f"the export wrote {len(names)} objects, with manifest.json {len(self._of(study)) + 1} belong"
            )
        self._console.print(
            f"[green]exported[/]: {len(self._of(study))} instances, each byte for byte what was dropped"
        )

    def _delete(self, watch: Watch, study: str) -> None:
        outcome = self._ask(watch, "deletes", {"path": f"studies/{study}"})
        if outcome["outcome"] != "deleted":
            raise DemoError(f"the delete ended as {outcome['outcome']}, {outcome.get('reason')}")
        self._console.print(f"[green]deleted[/]: studies/{study}")

    def _ask(self, watch: Watch, role: str, fields: dict[str, Any]) -> dict[str, Any]:
        request_id = self._running.command(role, fields)
        with self._console.status("waiting for the outcome"):
            for outcomes in self._waiting(watch):
                for outcome in outcomes:
                    if outcome.get("request_id") == request_id:
                        return outcome
        raise DemoError("it ended without an outcome")  # not reached: _waiting raises first

    def _waiting(self, watch: Watch) -> Iterator[list[dict[str, Any]]]:
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self._check()
            yield watch.take(wait_s=1.0)
        raise DemoError(f"an outcome did not come within {TIMEOUT_S:.0f} s")


def load_scans() -> Iterator[Scan]:
    """The demo's files, from the installed pydicom package."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    for name, file in SCANS.items():
        yield _scan(PREFIX + name, (folder / file).read_bytes(), broken=False)
    name, file, length = BROKEN
    yield _scan(PREFIX + name, (folder / file).read_bytes()[:length], broken=True)


def _scan(name: str, content: bytes, broken: bool) -> Scan:
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content), stop_before_pixels=True)
    return Scan(
        name,
        content,
        str(header.get("Modality", "")),
        SYNTAXES[header.file_meta.TransferSyntaxUID],
        str(header.StudyInstanceUID),
        str(header.SeriesInstanceUID),
        str(header.SOPInstanceUID),
        broken,
    )
