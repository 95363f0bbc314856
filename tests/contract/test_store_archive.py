"""Archives between a strict bucket server and a real DICOM store: each member has an outcome, and
the archive has one."""

import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import scans
from tests.contract.landing import LANDING, NEXT, QUARANTINE, Landing, landing, words
from tests.contract.strictbucket import Blob

STUDY = "1.2"
# Of a follow-up message: the first member is done.
MARK = {"place": [1], "members": 1, "total_bytes": 1, "waiting": []}


def uids(number: int) -> scans.Uids:
    return STUDY, f"{STUDY}.1", f"{STUDY}.1.{number}"


def files(count: int, size: int = 3000) -> list[tuple[str, bytes]]:
    return [
        (f"study/series/{n}", scans.dicom(uids(n), scans.noise(n, size)))
        for n in range(1, count + 1)
    ]


def archive(kind: str, content: list[tuple[str, bytes]]) -> bytes:
    if kind == "zip":
        return scans.zipped(content)
    return scans.tarred(content, "w:gz" if kind == "tar.gz" else "w")


def split(records: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The archive's own record, and those of its members by name."""
    (own,) = [record for record in records if "member" not in record]
    return own, {record["member"]: record for record in records if "member" in record}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        yield made


KINDS = pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])


@KINDS
def test_every_member_is_stored_byte_for_byte(place: Landing, kind: str) -> None:
    content = files(30)
    own, members = split(place.drop(f"a.{kind}", archive(kind, content)))
    assert own["outcome"] == "stored"
    assert own["counts"] == {"members": 30, "stored": 30}
    outcomes = {name: record["outcome"] for name, record in members.items()}
    assert outcomes == {name: "stored" for name, _ in content}
    for number, (_, data) in enumerate(content, 1):
        assert place.stored(uids(number)) == data
    ids = {record["id"] for record in members.values()}
    assert len(ids | {own["id"]}) == 31
    assert place.buckets.names(LANDING) == [f"a.{kind}"]


@KINDS
def test_members_that_fail_stand_beside_members_that_store(place: Landing, kind: str) -> None:
    content = files(4)
    place.drop("first.dcm", content[0][1])
    # Members are stored at the same time: of two with the same UIDs either could be the first.
    place.drop("third.dcm", content[2][1])
    content += [
        ("DICOMDIR", scans.meta(sop_class="1.2.840.10008.1.3.10")),
        ("viewer/README.TXT", b"a CD"),
        ("viewer/logo.jpg", scans.jpeg()),
        ("cut", content[1][1][:-99]),
        ("bad-uid", scans.dicom(("1", "1", "x"))),
        ("other", content[2][1][:-4] + bytes(4)),
    ]
    own, members = split(place.drop("cd", archive(kind, content)))
    assert own["outcome"] == "partial"
    assert own["counts"] == {
        "members": 10,
        "stored": 2,
        "duplicate": 2,
        "skipped": 3,
        "rejected": 2,
        "conflict": 1,
    }
    assert members["cut"]["reason"] == "rejected"
    assert members["bad-uid"]["reason"] == "unsupported_input"
    assert members["other"]["outcome"] == "conflict"
    assert {name for name, record in members.items() if record["outcome"] == "skipped"} == {
        "DICOMDIR",
        "viewer/README.TXT",
        "viewer/logo.jpg",
    }
    sidecar = place.sidecar(f"{own['reason']}/cd")
    assert {one["member"]: one["reason"] for one in sidecar["members"]} == {
        "cut": "rejected",
        "bad-uid": "unsupported_input",
        "other": "conflict",
    }
    assert place.buckets.names(LANDING) == ["first.dcm", "third.dcm"]


@KINDS
def test_pairs_are_stored_in_either_order_and_a_single_half_is_reported(
    place: Landing, kind: str
) -> None:
    content = [
        ("a/1.json", scans.metadata(uids(1))),
        ("a/2.jpg", scans.jpeg(2)),
        ("b/1.jpeg", scans.jpeg(3)),  # another folder: not the other half of a/1
        ("a/1.JPG", scans.jpeg(1)),
        ("a/2.json", scans.metadata(uids(2))),
        ("c/3.json", scans.metadata(uids(3))),
    ]
    own, members = split(place.drop("x", archive(kind, content)))
    assert own["counts"] == {"members": 6, "stored": 4, "skipped": 1, "rejected": 1}
    assert members["c/3.json"]["outcome"] == "rejected"
    assert members["b/1.jpeg"]["outcome"] == "skipped"
    assert members["a/1.json"]["instance"] == members["a/1.JPG"]["instance"] == uids(1)[2]
    assert place.instances() == 2


@KINDS
def test_an_archive_in_an_archive_is_gone_through_up_to_the_limit(
    place: Landing, kind: str
) -> None:
    inner = archive("tar.gz", files(3))
    own, members = split(place.drop("x", archive(kind, [("in/side", inner), *files(5)[3:]])))
    assert own["counts"] == {"members": 5, "stored": 5}
    assert "in/side/study/series/1" in members
    deeper = archive("zip", [("2", inner)])
    (refused,) = [r for r in place.drop("y", archive(kind, [("1", deeper)])) if "member" not in r]
    assert words([refused]) == [("rejected", "unsafe_archive")]


@KINDS
def test_an_archive_longer_than_one_invocation_continues_and_ends_once(
    place: Landing, kind: str
) -> None:
    content = [
        ("p/1.jpg", scans.jpeg(1)),
        *files(24),
        ("p/1.json", scans.metadata(uids(99))),
        *files(30)[24:],
    ]
    blob = place.upload("a", archive(kind, content))
    place.world.fault(method="POST", path="/studies$", kind="slow", delay_s=0.25)
    slices = place.finish(blob, budget_s=1.0)
    assert slices > 1
    own, members = split(place.world.outcomes)
    assert own["counts"] == {"members": 32, "stored": 32}
    assert len(members) == 32
    assert place.instances() == 31


def test_an_event_that_comes_again_between_two_slices_does_not_speak_for_the_archive(
    place: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "functions.store.archive_upload._MEMBER_PART", 2
    )  # a slice ends after one member
    blob = place.upload("a.zip", scans.zipped(files(6)))
    assert place.deliver(blob) == ""
    assert place.world.topics.messages[NEXT]
    assert place.deliver(blob) == ""
    assert all("member" in record for record in place.world.outcomes)
    place.follow()
    own, _ = split(place.world.outcomes)
    assert own["counts"] == {"members": 6, "stored": 6}


def test_after_an_outage_of_the_store_only_the_rest_is_repeated(place: Landing) -> None:
    blob = place.upload("a.zip", scans.zipped(files(40)))
    place.world.fault(
        method="POST",
        path="/studies$",
        kind="status",
        status=403,
        skip=15,
        count=2,
    )
    assert place.finish(blob) > 1
    own = [record for record in place.world.outcomes if "member" not in record]
    assert [(r["outcome"], r["counts"]["members"]) for r in own] == [("stored", 40)]
    assert place.instances() == 40
    assert place.world.requests("POST", "store") < 75


def test_a_whole_archive_delivered_twice_is_stored_once(place: Landing) -> None:
    blob = place.upload("a.zip", scans.zipped(files(10)))
    place.finish(blob)
    place.restart()
    place.finish(blob)
    by_id: Counter[str] = Counter(record["id"] for record in place.world.outcomes)
    assert set(by_id.values()) == {2}
    assert {record["outcome"] for record in place.world.outcomes} == {"stored"}
    assert place.instances() == 10


def test_members_that_were_deleted_and_are_sent_again_are_stored_and_no_duplicates(
    place: Landing,
) -> None:
    place.drop("a.zip", scans.zipped(files(3)))
    place.delete(f"studies/{STUDY}")
    records = place.drop("b.zip", scans.zipped(files(3)))
    assert words(records) == [("stored", "")] * 4
    assert place.instances() == 3


def test_two_members_of_one_name_have_two_outcomes(place: Landing) -> None:
    content = [("same", scans.dicom(uids(n))) for n in (1, 2)]
    records = place.drop("a.tar", scans.tarred(content))
    assert len({record["id"] for record in records}) == 3
    assert place.instances() == 2


def test_a_large_member_streams_through_a_read_that_breaks(place: Landing) -> None:
    data = scans.dicom(uids(1), scans.noise(1, 3_000_000))
    blob = place.upload("a.zip", scans.zipped([("big", data), *files(3)[1:]], zipfile.ZIP_STORED))
    place.buckets.cuts = [500, 100_000, 1_000_000, 300_000, 200_000, 100_000]
    place.finish(blob)
    assert place.stored(uids(1)) == data
    assert place.instances() == 3


def test_an_archive_is_read_little_more_than_once(place: Landing) -> None:
    place.drop("a.zip", scans.zipped(files(200)))
    assert place.instances() == 200
    assert (
        place.buckets.requests["read"] <= 8
    )  # its beginning, its directory (a few), and then all in one


def test_an_archive_overwritten_on_the_way_is_superseded(place: Landing) -> None:
    blob = place.upload("a.zip", scans.zipped(files(3)))
    place.upload("a.zip", b"later")
    place.finish(blob)
    assert words(place.world.outcomes) == [("superseded", "")]


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@KINDS
def test_an_archive_that_was_cut_is_quarantined(place: Landing, kind: str, cut: float) -> None:
    data = archive(kind, files(6, 40_000))
    own, _ = split(place.drop("a", data[: int(len(data) * cut)]))
    assert own["outcome"] in ("rejected", "partial")
    assert own["reason"] == "unsupported_input"
    assert place.buckets.names(QUARANTINE) == [
        "unsupported_input/a",
        "unsupported_input/a.reason.json",
    ]


def test_a_damaged_member_is_never_stored(place: Landing) -> None:
    content = files(2, 50_000)
    data = bytearray(scans.zipped(content, zipfile.ZIP_STORED))
    data[25_000] ^= 1  # inside the first member's pixels: only its checksum shows it
    own, members = split(place.drop("a.zip", bytes(data)))
    assert own["outcome"] == "partial"
    assert members["study/series/1"]["reason"] == "unsupported_input"
    assert place.instances() == 1


def test_a_member_that_may_stay_as_it_is_does_not_spoil_the_archive(tmp_path: Path) -> None:
    with landing(tmp_path, CONFLICT_POLICY="keep") as place:
        content = files(2)
        place.drop("a.dcm", content[0][1][:-4] + bytes(4))
        own, members = split(place.drop("a.zip", scans.zipped(content)))
        assert own["outcome"] == "stored"
        assert own["counts"] == {"members": 2, "stored": 1, "conflict": 1}
        assert members["study/series/1"]["reason"] == "conflict"
        assert not place.buckets.names(QUARANTINE)


@pytest.mark.parametrize("new", [0, 1])
@pytest.mark.parametrize("same", [0, 1])
def test_an_archive_with_bytes_that_only_it_has_stays(tmp_path: Path, same: int, new: int) -> None:
    with landing(
        tmp_path, CONFLICT_POLICY="keep", SOURCE_DISPOSITION="before/=keep,delete"
    ) as place:
        content = files(3)
        place.drop("before/a.dcm", content[0][1][:-4] + bytes(4))
        place.drop("before/b.dcm", content[1][1])
        own, _ = split(
            place.drop("a.zip", scans.zipped(content[: 1 + same] + content[2 : 2 + new]))
        )
        counts = {
            "conflict": 1,
            "duplicate": same,
            "stored": new,
            "members": 1 + same + new,
        }
        assert own["counts"] == {word: count for word, count in counts.items() if count}
        assert words([own]) == [("stored", "") if new else ("conflict", "conflict")]
        assert "a.zip" in place.buckets.names(LANDING)
        assert not place.buckets.names(QUARANTINE)


@pytest.mark.parametrize("hidden", ["encrypted", "gzip"])
def test_an_archive_with_a_scan_that_cannot_be_read_is_kept(tmp_path: Path, hidden: str) -> None:
    with landing(tmp_path, SOURCE_DISPOSITION="delete") as place:
        content = files(2)
        if hidden == "gzip":
            content[1] = ("scan.dcm.gz", gzip.compress(content[1][1]))
        data = bytearray(scans.zipped(content))
        for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
            data[data.rindex(mark) + at] |= hidden == "encrypted"
        own, members = split(place.drop("a.zip", bytes(data)))
        assert own["counts"] == {"members": 2, "stored": 1, "rejected": 1}
        assert members[content[1][0]]["reason"] == "unsupported_input"
        assert place.buckets.read(QUARANTINE, "unsupported_input/a.zip") == data


def test_a_damaged_tar_gz_is_quarantined(place: Landing) -> None:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=0) as packed:
        packed.write(scans.tarred(files(2, 50_000)))
    data = bytearray(file.getvalue())
    data[25_000] ^= 1  # inside the first member's pixels: only the checksum of the whole shows it
    own, _ = split(place.drop("a.tgz", bytes(data)))
    assert words([own]) == [("partial", "unsupported_input")]
    assert "unsupported_input/a.tgz" in place.buckets.names(QUARANTINE)


@KINDS
def test_an_archive_that_is_unpacked_on_the_way_is_refused_with_the_reason(
    place: Landing, kind: str
) -> None:
    place.buckets.extra = {"x-goog-stored-content-encoding": "gzip"}
    own, members = split(place.drop("a", archive(kind, files(3))))
    assert "Content-Encoding" in own["detail"]
    assert not members


def test_a_whole_object_in_place_of_a_range_is_refused(place: Landing) -> None:
    blob = place.upload("a.zip", scans.zipped(files(30, 40_000), zipfile.ZIP_STORED))
    place.buckets.ranges = False
    assert place.deliver(blob) == "unavailable"
    assert not place.world.outcomes
    place.buckets.ranges = True
    place.finish(blob)
    assert place.instances() == 30


def test_nothing_to_store_is_quarantined(place: Landing) -> None:
    own, _ = split(place.drop("a.zip", scans.zipped([("a.txt", b"1"), ("b/", b"")])))
    assert words([own]) == [("rejected", "unsupported_input")]


@pytest.mark.parametrize(
    ("setting", "limit", "content"),
    [
        ("MAX_MEMBERS", "3", files(4)),
        ("MAX_BYTES", "10000", files(4)),
        ("MAX_MEMBER_BYTES", "3000", files(1)),
        ("MAX_NESTING", "0", [("in.zip", scans.zipped(files(1)))]),
        ("MAX_NAME_BYTES", "20", [("n" * 21, b"1")]),
        ("MAX_RATIO", "200", [("../escape", b"1")]),
        ("MAX_RATIO", "200", [("/etc/passwd", b"1")]),
        ("MAX_RATIO", "200", [("c:\\x", b"1")]),
        ("MAX_RATIO", "200", [("a\nb", b"1")]),
    ],
)
@KINDS
def test_each_limit_is_one(
    tmp_path: Path, kind: str, setting: str, limit: str, content: list[tuple[str, bytes]]
) -> None:
    check_unsafe(tmp_path, kind, setting, limit, content)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_is_too_small_for_its_content_is_unsafe(tmp_path: Path, kind: str) -> None:
    check_unsafe(tmp_path, kind, "MAX_RATIO", "2", [("zeros", bytes(40_000_000))])


def check_unsafe(
    tmp_path: Path, kind: str, setting: str, limit: str, content: list[tuple[str, bytes]]
) -> None:
    """An archive with this content goes to quarantine as a whole under this setting."""
    with landing(tmp_path, **{f"ARCHIVE_{setting}": limit}) as place:
        own, _ = split(place.drop("a", archive(kind, content)))
        assert own["reason"] == "unsafe_archive"
        assert place.buckets.names(QUARANTINE) == [
            "unsafe_archive/a",
            "unsafe_archive/a.reason.json",
        ]


@pytest.mark.parametrize(
    "change",
    [
        {"mark": {}},
        {"mark": {**MARK, "place": [-1]}},
        {"mark": {**MARK, "place": ["1"]}},
        {"mark": {**MARK, "members": True}},
        {"mark": {**MARK, "waiting": [1]}},
        {"counts": {"stored": "1"}},
        {"failed": [["a"]]},
        {"event": None},
        {
            "event": {
                "bucket": "dicom-archive",
                "name": "a.zip",
                "generation": "1",
                "size": "1",
            }
        },
        {"more": 1},
    ],
)
def test_a_malformed_follow_up_message_is_refused(place: Landing, change: dict[str, Any]) -> None:
    message = follow_up(place.upload("a.zip", scans.zipped(files(2))))
    place.deliver_follow_up({**message, **change})
    assert words(place.world.outcomes) == [("rejected", "invalid_event")]
    assert place.instances() == 0


def test_a_follow_up_message_continues_at_its_place(place: Landing) -> None:
    place.deliver_follow_up(follow_up(place.upload("a.zip", scans.zipped(files(2)))))
    own, members = split(place.world.outcomes)
    assert own["counts"] == {"members": 2, "stored": 2}
    assert list(members) == [files(2)[1][0]]


def follow_up(blob: Blob) -> dict[str, Any]:
    """The follow-up message of an archive whose first member is stored."""
    return {
        "event": blob.resource,
        "mark": MARK,
        "counts": {"stored": 1},
        "failed": [],
    }


def test_an_inner_archive_that_a_follow_up_finds_cut_is_quarantined_with_its_archive(
    tmp_path: Path,
) -> None:
    with landing(tmp_path, SOURCE_DISPOSITION="delete") as place:
        (first, *rest) = files(2)
        # The header of the second member is damaged: after the first, no more can be read.
        whole = bytearray(scans.tarred([first, *rest]))
        second = whole.index(rest[0][0].encode())
        whole[second] ^= 1
        data = scans.zipped([("in.tar", bytes(whole))])
        blob = place.upload("a.zip", data)
        within = {"place": [0, second], "members": 1, "total_bytes": 1, "waiting": []}
        place.deliver_follow_up({**follow_up(blob), "mark": within})
        own, members = split(place.world.outcomes)
        assert (members["in.tar"]["outcome"], own["outcome"]) == ("rejected", "partial")
        assert place.buckets.read(QUARANTINE, "unsupported_input/a.zip") == data
