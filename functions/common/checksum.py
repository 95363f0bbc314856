"""The checksum of Cloud Storage: crc32c."""

import base64
from collections.abc import Sequence

import google_crc32c


class Checksum:
    """A running crc32c."""

    def __init__(self) -> None:
        self._value = 0

    def add(self, data: bytes | memoryview) -> None:
        """Add more bytes."""
        if isinstance(data, memoryview):
            data = bytes(data)
        self._value = google_crc32c.extend(self._value, data)

    @property
    def text(self) -> str:
        """The form of Cloud Storage: base64 of four big-endian bytes."""
        return base64.b64encode(self._value.to_bytes(4, "big")).decode()


def crc32c_text(pieces: Sequence[bytes]) -> str:
    """The crc32c of these bytes, concatenated."""
    checksum = Checksum()
    for piece in pieces:
        checksum.add(piece)
    return checksum.text
