"""The demo: store, search, export and delete real scans, and check the result of each step."""

import json
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pydicom
import pydicom.data
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.clients import CALL_S, Clients
from cli.listen import receiver
from cli.output import STYLES, console, say
from cli.search import print_studies, studies
from cli.text import shown, size_text
from cli.watch import Outcome, Watch

TIMEOUT_S: Final = 120.0
PREFIX: Final = "demo/"
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
# The first bytes of a file, as after an interrupted transfer.
BROKEN = ("us/cut-off.dcm", "examples_rgb_color.dcm", 20_000)
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
    """One file of the demo.

    Args:
        name: of its object.
        syntax: its transfer syntax in few words.
        outcome: what became of it, once that is known.
    """

    name: str
    content: bytes
    modality: str
    syntax: str
    study: str
    series: str
    instance: str
    broken: bool = False
    generation: str = ""
    outcome: Outcome = field(default_factory=dict)


class Demo:
    """Store, find, export, compare and delete scans; search again.

    Args:
        clients: of a system that runs on this machine.
        check: raises when a process of the system has ended; called while waiting.
    """

    def __init__(self, clients: Clients, check: Callable[[], None]) -> None:
        self._clients = clients
        self._check = check
        self._scans = list(load_scans())

    def run(self) -> None:
        """Run all steps.

        Raises:
            DemoError: a result is wrong or late.
        """
        with Watch(self._clients) as watch:
            self._store(watch)
            found = self._search()
            study = max(found, key=lambda item: len(self._of(item)))
            self._export(watch, study)
            self._delete(watch, study)
        self._search(without=study)
        self._complete(study)

    def _bucket(self, role: str) -> Any:
        return self._clients.storage.bucket(self._clients.system.buckets[role])

    def _of(self, study: str) -> list[Scan]:
        return [scan for scan in self._scans if scan.study == study and not scan.broken]

    def _store(self, watch: Watch) -> None:
        bucket = self._bucket("landing")
        count = len(self._scans)
        _title(f"1. Upload {count} files to gs://{bucket.name}, one of them broken on purpose")
        with Live(
            self._table(),
            console=console(),
            refresh_per_second=8,
            vertical_overflow="visible",
        ) as live:
            for scan in self._scans:
                blob = bucket.blob(scan.name)
                blob.upload_from_string(scan.content, "application/dicom", timeout=CALL_S)
                scan.generation = str(blob.generation)
                self._note(watch.take(wait_s=0))
                live.update(self._table())
            for outcomes in self._waiting(watch):
                self._note(outcomes)
                live.update(self._table())
                if all(scan.outcome for scan in self._scans):
                    break
        if not console().is_terminal:
            say("")
        self._check_stored()

    def _check_stored(self) -> None:
        for scan in self._scans:
            word = scan.outcome.get("outcome")
            if scan.broken and word == "rejected":
                self._check_quarantine(scan)
            elif scan.broken or word not in ("stored", "duplicate"):
                raise DemoError(f"{scan.name} ended as {word}")

    def _check_quarantine(self, scan: Scan) -> None:
        name = f"{scan.outcome['reason']}/{scan.name}"
        blob = self._bucket("quarantine").blob(name)
        if blob.download_as_bytes(timeout=CALL_S) != scan.content:
            raise DemoError(f"gs://{blob.bucket.name}/{name} is not the broken file")
        say(f"The broken file is in quarantine, with the reason: gs://{blob.bucket.name}/{name}")

    def _note(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            key = (outcome.get("name"), outcome.get("generation"))
            for scan in self._scans:
                if key == (scan.name, scan.generation) and not scan.outcome:
                    scan.outcome = outcome

    def _table(self) -> Table:
        headings = ("object", "modality", "transfer syntax", "size", "outcome", "ms", "reason")
        table = Table(*headings, box=None, pad_edge=False)
        for scan in self._scans:
            word = shown(scan.outcome.get("outcome", "…"))
            table.add_row(
                Text(scan.name),
                Text(scan.modality),
                Text(scan.syntax),
                Text(size_text(len(scan.content))),
                Text(word, style=STYLES.get(word, "dim")),
                Text(shown(scan.outcome.get("duration_ms"))),
                Text(shown(scan.outcome.get("reason"))),
            )
        return table

    def _search(self, without: str = "") -> list[str]:
        if without:
            _title("4. Search again: the study is gone")
        else:
            _title("2. Search: what the DICOM store has now")
        found = studies(self._clients)
        ours = self._stored_studies()
        expected = [study for study in ours if study != without]
        missing = [study for study in expected if study not in found]
        if missing:
            count = f"{len(missing)} of {len(expected)}"
            raise DemoError(f"{count} stored studies are not found, such as {missing[0]}")
        if without in found:
            raise DemoError(f"{without} is still found")
        if not without:
            rows = [found[study] for study in expected]
            print_studies(self._clients, rows)
        url = self._clients.system.search_url
        say(f"{len(expected)} of {len(ours)} studies, also at {url}/studies")
        return expected

    def _stored_studies(self) -> list[str]:
        """The studies of all files that can be stored, each once, in the order of the upload."""
        studies: list[str] = []
        for scan in self._scans:
            if not scan.broken and scan.study not in studies:
                studies.append(scan.study)
        return studies

    def _export(self, watch: Watch, study: str) -> None:
        scans = self._of(study)
        bucket = self._bucket("export")
        prefix = f"demo/{uuid.uuid4().hex[:8]}"
        place = f"gs://{bucket.name}/{prefix}"
        _title(f"3. Export one study of {len(scans)} instances to {place}, then delete it")
        command = {"path": f"studies/{study}", "destination": place}
        outcome = self._ask(watch, "exports", command)
        self._expect("export", outcome, "exported")
        self._check_export(scans, bucket, prefix)
        say(f"exported: {len(scans)} instances, identical to the uploaded files")

    def _check_export(self, scans: list[Scan], bucket: Any, prefix: str) -> None:
        """Each exported file is the uploaded one, and there is a manifest and nothing else."""
        wanted = {f"{prefix}/manifest.json"}
        for scan in scans:
            name = f"{prefix}/{scan.study}/{scan.series}/{scan.instance}.dcm"
            wanted.add(name)
            exported = bucket.blob(name).download_as_bytes(timeout=CALL_S)
            if exported != scan.content:
                raise DemoError(f"gs://{bucket.name}/{name} is not the uploaded file")
        blobs = bucket.list_blobs(prefix=f"{prefix}/", timeout=CALL_S)
        found = {blob.name for blob in blobs}
        if found != wanted:
            raise DemoError(f"the export wrote {sorted(found)}")

    def _delete(self, watch: Watch, study: str) -> None:
        outcome = self._ask(watch, "deletes", {"path": f"studies/{study}"})
        self._expect("delete", outcome, "deleted")
        say(f"deleted: studies/{study}")

    def _complete(self, study: str) -> None:
        scans = self._of(study)
        _title(
            f"5. Upload its {len(scans)} files again: the complete study is exported, "
            "and a webhook is called"
        )
        wanted = {"outcome.study_complete", "outcome.exported"}
        with receiver(self._clients) as received:
            landing = self._bucket("landing")
            for scan in scans:
                blob = landing.blob(scan.name)
                blob.upload_from_string(scan.content, "application/dicom", timeout=CALL_S)
            end = time.monotonic() + TIMEOUT_S
            while wanted and time.monotonic() < end:
                self._check()
                try:
                    message = received.get(timeout=1.0)
                except queue.Empty:
                    continue
                if message["data"].get("study") == study:
                    self._show(message, wanted)
        if wanted:
            missing = ", ".join(sorted(wanted))
            raise DemoError(f"no webhook was received for {missing}")

    def _show(self, message: dict[str, Any], wanted: set[str]) -> None:
        if message["type"] in wanted:
            wanted.remove(message["type"])
            counts = message["data"].get("counts", {})
            say(f"webhook, signature verified: {message['type']} {json.dumps(counts)}")

    def _expect(self, what: str, outcome: Outcome, word: str) -> None:
        if outcome["outcome"] != word:
            reason = outcome.get("reason")
            raise DemoError(f"the {what} ended as {outcome['outcome']}, {reason}")

    def _ask(self, watch: Watch, role: str, fields: dict[str, Any]) -> Outcome:
        request_id = f"demo-{uuid.uuid4().hex[:12]}"
        command = json.dumps({**fields, "request_id": request_id}).encode()
        self._clients.publish(self._clients.system.topic(role), command, {})
        for outcomes in self._waiting(watch):
            for outcome in outcomes:
                if outcome.get("request_id") == request_id:
                    return outcome
        raise AssertionError("the wait ends in an error")

    def _waiting(self, watch: Watch) -> Iterator[list[Outcome]]:
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self._check()
            yield watch.take(wait_s=1.0)
        raise DemoError(f"there was no outcome within {TIMEOUT_S:.0f} s")


def _title(text: str) -> None:
    say("")
    say(Text(text, style="bold"))


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
        name=name,
        content=content,
        modality=str(header.get("Modality", "")),
        syntax=SYNTAXES[header.file_meta.TransferSyntaxUID],
        study=str(header.StudyInstanceUID),
        series=str(header.SeriesInstanceUID),
        instance=str(header.SOPInstanceUID),
        broken=broken,
    )
