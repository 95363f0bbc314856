"""Replaces the DICOM store's URLs in its answers by the function's."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_HOST_LENGTH: Final = 260  # of a host with its port


class StoreUrls:
    """The beginnings of a DICOM store's URLs, on any host: the API has several host names.

    Args:
        roots: the possible paths between the host and the store's name, such as `/v1`.
        store: `projects/…/dicomStores/…`.
    """

    def __init__(self, roots: Iterable[str], store: str) -> None:
        path = f"/{store}/dicomWeb/"
        self._path = path.encode()
        roots = sorted(roots)
        root = "|".join(map(re.escape, roots))
        host = rf'https?://[^/"\s]{{1,{_HOST_LENGTH}}}'
        self._beginning = re.compile(f"{host}(?:{root}){re.escape(path)}".encode())
        longest = len("https://") + _HOST_LENGTH + max(map(len, roots)) + len(path)
        self._held_back = longest - 1

    def replaced(self, text: bytes, base: bytes) -> bytes:
        """The text with `base` in place of the beginning of each of these URLs."""
        if self._path not in text:
            return text
        return self._beginning.sub(base.replace(b"\\", rb"\\"), text)

    def replaced_in_chunks(self, chunks: Iterable[bytes], base: bytes) -> Iterator[bytes]:
        """The same for a text in chunks, also where a URL is cut between two of them."""
        rest = b""
        for chunk in chunks:
            piece = self.replaced(rest + chunk, base)
            # A URL may continue in the next chunk.
            cut = max(0, len(piece) - self._held_back)
            rest = piece[cut:]
            if cut:
                yield piece[:cut]
        if rest:
            yield rest
