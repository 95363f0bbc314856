"""Zips written in parts, read back by two independent readers."""

import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.export.content import Content
from functions.export.zip_format import Member, ZipPart, directory


def joined(parts: list[tuple[ZipPart, bytes]]) -> bytes:
    return b"".join(data for _, data in parts) + b"".join(
        directory((len(data), part.members) for part, data in parts)
    )


def part_of(*members: tuple[str, bytes, bool]) -> tuple[ZipPart, bytes]:
    part = ZipPart()
    data = b""
    for name, content, streamed in members:
        pieces = [content[at : at + 1000] for at in range(0, len(content), 1000)]
        head, rest = (pieces[:1], iter(pieces[1:])) if streamed else (pieces, None)
        data += b"".join(part.add(name, Content(head, rest)))
    return part, data


def test_parts_are_joined_to_a_zip_that_readers_take(tmp_path: Path) -> None:
    files = {f"1.2/1.2.3/{n}.dcm": bytes([n]) * (n * 777) for n in range(40)}
    names = list(files)
    parts = [
        part_of(*((name, files[name], n % 3 == 0) for n, name in enumerate(names[at : at + 9])))
        for at in range(0, 40, 9)
    ]
    data = joined(parts)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    if unzip := shutil.which("unzip") or shutil.which("bsdtar"):
        (tmp_path / "a.zip").write_bytes(data)
        arguments = ["-tq"] if unzip.endswith("unzip") else ["-tf"]
        assert (
            subprocess.run([unzip, *arguments, tmp_path / "a.zip"], capture_output=True).returncode
            == 0
        )


def test_the_same_files_make_the_same_bytes() -> None:
    members = [("a", b"1" * 5000, False), ("b", b"2" * 5000, True)]
    assert joined([part_of(*members)]) == joined([part_of(*members)])


def test_a_member_that_broke_off_leaves_the_zip_good() -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    part, data = part_of(("a", b"first", False))
    with pytest.raises(ConnectionError):
        for piece in part.add("b", Content([b"first "], broken())):
            data += piece
    data += b"".join(part.add("b", Content([b"whole"])))
    with zipfile.ZipFile(io.BytesIO(joined([(part, data)]))) as archive:
        assert archive.testzip() is None
        assert [(name, archive.read(name)) for name in archive.namelist()] == [
            ("a", b"first"),
            ("b", b"whole"),
        ]


@pytest.mark.parametrize("count", [0, 1, 65_534, 65_535, 70_000])
def test_any_number_of_members(count: int) -> None:
    part, data = part_of(*((str(n), b"", False) for n in range(count)))
    with zipfile.ZipFile(io.BytesIO(joined([(part, data)]))) as archive:
        assert len(archive.namelist()) == count


def test_sizes_and_offsets_over_4_gib(tmp_path: Path) -> None:
    """Only the directory, behind a hole: Python's reader takes sizes and offsets from there."""
    huge = 5 * 2**30
    members = [
        Member("a", huge, 1, 0, streamed=True),
        Member("b", 7, 2, huge + 100, streamed=False),
    ]
    with (tmp_path / "a.zip").open("wb") as file:
        file.seek(huge + 200)
        file.writelines(directory([(huge + 200, members)]))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        read = [
            (one.filename, one.file_size, one.compress_size, one.header_offset)
            for one in archive.infolist()
        ]
    assert read == [("a", huge, huge, 0), ("b", 7, 7, huge + 100)]
