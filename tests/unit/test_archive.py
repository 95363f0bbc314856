"""Archives gone through member by member: whole, from any place on, cut and damaged anywhere, and
built to harm."""

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.settings import Settings
from functions.store.archive import BEGINNING, Member, Place, Walk
from functions.store.archive_limits import Budget
from tests import scans

SETTINGS = replace(
    Settings.load("", {}),  # each setting's default
    archive_max_members=1000,
    archive_max_bytes=1 << 30,
    archive_max_member_bytes=1 << 28,
    archive_max_ratio=500,
    archive_max_nesting=2,
)
NAMES = st.text("abc/._- ü", min_size=1, max_size=12).filter(
    lambda n: ".." not in n.split("/") and not n.startswith("/") and not n.endswith("/")
)
FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=3000).map(lambda text: b"." + text)), max_size=6
)
KINDS: Any = st.sampled_from(["zip", "tar", "gzip"])


def pack(kind: str, files: list[tuple[str, bytes]]) -> bytes:
    if kind == "zip":
        with contextlib.suppress(UserWarning):
            return scans.zipped(files)
    return scans.tarred(files, "w:gz" if kind == "gzip" else "w")


def walk(
    data: bytes, kind: Any, place: Place = BEGINNING, limits: Settings = SETTINGS
) -> list[tuple[Member, bytes]]:
    found = []
    budget = Budget(limits, len(data))
    for member in Walk(io.BytesIO(data), kind, budget).members(place):
        budget.count(member.size)
        text = b""
        if member.problem is None:
            text = b"".join(member.source.chunks())
        found.append((member, text))
    return found


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=60)
@given(FILES, KINDS, KINDS)
def test_members_come_in_order_and_a_walk_continues_from_any_place(
    files: list[tuple[str, bytes]], kind: str, inner: str
) -> None:
    within = [("first", b"begin"), *files[:3]]
    last = ("last", b"end")
    data = pack(kind, [*files, ("inner", pack(inner, within)), last])
    expanded = [(f"inner/{name}", text) for name, text in within]
    expected = [*files, *expanded, last]
    whole = walk(data, kind)
    assert [(member.name, text) for member, text in whole] == expected
    texts = [text for _, text in expected]

    def texts_from(place: Place) -> list[bytes]:
        return [text for _, text in walk(data, kind, place)]

    for number, (member, _) in enumerate(whole):
        assert texts_from(member.place) == texts[number:]
        assert texts_from(member.following) == texts[number + 1 :]


@settings(max_examples=100)
@given(FILES, KINDS, st.data())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damage_ends_in_a_reason_or_in_true_bytes(
    files: list[tuple[str, bytes]], kind: str, data: st.DataObject
) -> None:
    whole = bytearray(pack(kind, files))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole = whole[:at]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    try:
        found = walk(bytes(whole), kind)
    except PermanentError as error:
        assert error.reason in ("unsupported_input", "unsafe_archive")
        return
    if kind != "tar":  # which has no checksum
        texts = [text for _, text in files]
        assert all(text in texts for member, text in found if member.problem is None)


@settings(max_examples=100)
@given(st.binary(max_size=2000), KINDS)
def test_any_bytes_end_in_one_reason_or_nothing(data: bytes, kind: str) -> None:
    try:
        walk(data, kind)
    except PermanentError as error:
        assert error.reason in ("unsupported_input", "unsafe_archive")


def refused(data: bytes, kind: str, members: int = 1000) -> str:
    with pytest.raises(PermanentError) as caught:
        walk(data, kind, limits=replace(SETTINGS, archive_max_members=members))
    assert caught.value.reason == "unsafe_archive"
    return caught.value.detail


def test_a_zip_that_lies_about_its_count_is_counted() -> None:
    data = bytearray(scans.zipped((str(n), b"") for n in range(500)))
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 12] = struct.pack("<HH", 1, 1)
    assert "members" in refused(bytes(data), "zip", members=100)


def test_a_zip64_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # As more than 65,535 members or 4 GiB have it.
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = scans.zipped((str(n), b"text") for n in range(3))
    assert b"PK\x06\x06" in data
    assert [text for _, text in walk(data, "zip")] == [b"text"] * 3


def listed(count: int, name: str, comment: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number in range(count):
            info = zipfile.ZipInfo(f"{number}{name}")
            info.comment = comment
            packed.writestr(info, b"")
    return file.getvalue()


def test_the_list_of_a_zip_is_measured_before_it_is_read() -> None:
    fair = listed(3000, "/" + "1.2.840.99" * 20 + ".dcm", b"")
    assert len(walk(fair, "zip", limits=replace(SETTINGS, archive_max_members=3000))) == 3000
    for harmful in (
        listed(200, "", bytes(20_000)),
        listed(2500, "\N{GRINNING FACE}" + "a" * 300, b""),
    ):
        assert "list" in refused(harmful, "zip", members=2500)
    inner = listed(900, "b" * 200, b"")
    outer = [(f"{n}{'a' * 200}", b"") for n in range(900)]
    within = scans.zipped([("in.zip", inner), *outer])
    assert len(walk(within, "zip", limits=replace(SETTINGS, archive_max_members=1900))) == 1800
    assert "members" in refused(within, "zip", members=1200)


def test_a_zip_whose_member_has_no_name_is_refused() -> None:
    listed_one = struct.pack("<4s42x", b"PK\x01\x02")
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(listed_one), 0, 0)
    assert "name" in refused(listed_one + end, "zip")


def test_members_that_share_bytes_are_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a", bytes(5000))
        packed.writestr("b", bytes(5000))
        packed.getinfo("b").header_offset = packed.getinfo("a").header_offset + 10
    assert "share" in refused(file.getvalue(), "zip")


def test_a_header_that_would_fill_the_memory_is_refused() -> None:
    import tarfile

    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33  # a name of 8 GiB
    assert "header" in refused(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048), "tar")


def test_headers_do_not_gather_in_memory() -> None:
    import tarfile

    def pax(kind: bytes, key: str, size: int) -> bytes:
        record = b" %s=%s\n" % (key.encode(), b"x" * size)
        record = str(len(record) + 5).encode() + record
        info = tarfile.TarInfo("headers")
        info.type, info.size = kind, len(record)
        return info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)

    file = tarfile.TarInfo("a").tobuf()
    for_all = b"".join(pax(tarfile.XGLTYPE, f"key{n:03}", 50_000) + file for n in range(400))
    tar = Walk(io.BytesIO(for_all + bytes(1024)), "tar", Budget(SETTINGS, len(for_all)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in tar.members()) == 400
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()
    in_a_row = b"".join(pax(tarfile.XHDTYPE, f"key{n:03}", 20_000) for n in range(4))
    assert "headers" in refused(in_a_row + file + bytes(1024), "tar")


@pytest.mark.parametrize("kind", [b"0", b"2"])  # a file, a symbolic link
@pytest.mark.parametrize("size", [-1, -512, -(10**15)])
def test_a_tar_with_a_negative_size_is_damaged_there(kind: bytes, size: int) -> None:
    import tarfile

    info = tarfile.TarInfo("b")
    info.type, info.size = kind, size
    after = scans.tarred([("c", b"3")])
    data = scans.tarred([("a", b"1")])[:1024] + info.tobuf(tarfile.GNU_FORMAT) + after
    members = Walk(io.BytesIO(data), "tar", Budget(SETTINGS, len(data))).members()
    assert next(members).name == "a"
    with pytest.raises(PermanentError) as caught:
        next(members)
    assert caught.value.reason == "unsupported_input"


def test_a_bomb_is_refused_before_it_is_read() -> None:
    bomb = scans.zipped([("zeros", bytes(100_000_000))])
    assert "bytes" in refused(bomb, "zip")
    assert "bytes" in refused(scans.tarred([("zeros", bytes(100_000_000))], "w:gz"), "gzip")


def test_links_devices_and_secrets_have_a_problem_each() -> None:
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"x{kind!r}")
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
    assert [member.problem is not None for member, _ in walk(file.getvalue(), "tar")] == [True] * 4
    secret = bytearray(scans.zipped([("a", b"1")]))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        secret[secret.index(mark) + at] |= 1
    for data in (
        secret,
        scans.zipped([("a", b"1")], zipfile.ZIP_BZIP2),
        scans.zipped([("a", b"1")], zipfile.ZIP_LZMA),
    ):
        problem = walk(bytes(data), "zip")[0][0].problem
        assert problem is not None
        assert not isinstance(problem, NothingToStoreError)  # it may be a scan


def test_gzip_that_is_not_a_tar_is_bad_only_if_it_contains_a_scan() -> None:
    texts = [
        ("scan.gz", gzip.compress(scans.dicom(("1", "2", "3")))),
        ("text.gz", gzip.compress(b"text")),
    ]
    problems = [member.problem for member, _ in walk(scans.zipped(texts), "zip")]
    assert [isinstance(problem, NothingToStoreError) for problem in problems] == [False, True]


@pytest.mark.parametrize("within", [False, True])
def test_the_checksum_of_a_tar_gz_is_compared(within: bool) -> None:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=0) as packed:
        packed.write(scans.tarred([("a", bytes(40_000))]))
    data = bytearray(file.getvalue())
    data[20_000] ^= 1
    if within:
        (_, whole) = (member for member, _ in walk(scans.tarred([("in", bytes(data))]), "tar"))
        assert whole.name == "in"
        assert str(whole.problem) == "unsupported_input"
        return
    with pytest.raises(PermanentError) as caught:
        walk(bytes(data), "gzip")
    assert caught.value.reason == "unsupported_input"


def test_what_follows_the_tar_in_a_gzip_is_bounded() -> None:
    data = gzip.compress(scans.tarred([("a", b"1")])) + gzip.compress(bytes(20_000_000))
    assert "bytes" in refused(data, "gzip")


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip"])
def test_an_error_of_the_code_is_not_taken_for_damage(kind: str) -> None:
    class Broken(Budget):
        def check_file(self, name: str, size: int) -> None:
            raise ValueError("a bug")

    data = pack(kind, [("inner", pack(kind, [("a", b"text")]))])
    members = Walk(io.BytesIO(data), cast("Any", kind), Broken(SETTINGS, len(data))).members()
    with pytest.raises(ValueError, match="a bug"):
        next(members)


def test_names_that_no_character_set_explains_can_be_written_as_json() -> None:
    data = scans.tarred([("M\udcfcller", b"1")])
    ((member, _),) = walk(data, "tar")
    assert member.name.encode()
