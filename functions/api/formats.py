"""The formats of an export.

To add one with an object for each instance or frame, change four files:

1. this table: a row;
2. export/fetch.py, if the format is retrieved in a new way, or if its bytes are not those that the
   store sends: a method in `_RETRIEVE` (for a streamed format, also one in `_RETRIEVE_MANY`);
3. search/web/openapi.json: its name;
4. commands/openapi.json: its name. Tests compare the two with this table.

The search page and the command line read this table. An object for each series would need more: an
export counts instances, and asks when each was stored (export/slices.py, plan.py, object_slice.py).
"""

from dataclasses import dataclass
from typing import Final, Literal

Retrieval = Literal["file", "rendered", "metadata", "metadata-xml", "bulkdata"]
Joined = Literal["", "zip", "ndjson"]


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        name: its name in commands.
        label: its name for people, on the search page.
        extension: of the objects' names.
        content_type: of the objects.
        accept: the Accept header for the DICOM store.
        retrieval: how fetch.py retrieves it.
        begins: bytes that each object has at `begins_at`: an answer of 200 may still be something
            else, such as a proxy's page.
        streamed: whether a whole study or series comes in one answer.
        transcodes: whether a command may name a transfer syntax.
        joined: the object that the slices are joined to at the end.
    """

    name: str
    label: str
    extension: str
    content_type: str
    accept: str
    retrieval: Retrieval
    begins: bytes = b""
    begins_at: int = 0
    streamed: bool = False
    transcodes: bool = False
    joined: Joined = ""

    @property
    def rendered(self) -> bool:
        """Whether each object is an image: of an instance or of one frame."""
        return self.retrieval == "rendered"


_FILE: Final = 'multipart/related; type="application/dicom"; transfer-syntax={transfer_syntax}'
_TABLE: Final = (
    Format(
        name="dicom",
        label="DICOM files",
        extension=".dcm",
        content_type="application/dicom",
        accept=_FILE,
        retrieval="file",
        begins=b"DICM",
        begins_at=128,
        streamed=True,
        transcodes=True,
    ),
    Format(
        name="zip",
        label="One zip file of DICOM files",
        extension=".dcm",
        content_type="application/dicom",
        accept=_FILE,
        retrieval="file",
        begins=b"DICM",
        begins_at=128,
        streamed=True,
        transcodes=True,
        joined="zip",
    ),
    Format(
        name="jpeg",
        label="JPEG pictures",
        extension=".jpg",
        content_type="image/jpeg",
        accept="image/jpeg",
        retrieval="rendered",
        begins=b"\xff\xd8",
    ),
    Format(
        name="png",
        label="PNG pictures",
        extension=".png",
        content_type="image/png",
        accept="image/png",
        retrieval="rendered",
        begins=b"\x89PNG",
    ),
    Format(
        name="metadata",
        label="Metadata as JSON",
        extension=".json",
        content_type="application/dicom+json",
        accept="application/dicom+json",
        retrieval="metadata",
        streamed=True,
        joined="ndjson",
    ),
    Format(
        name="metadata-xml",
        label="Metadata as XML",
        extension=".xml",
        content_type="application/dicom+xml",
        accept='multipart/related; type="application/dicom+xml"',
        retrieval="metadata-xml",
    ),
    Format(
        name="bulkdata",
        label="Bulk data",
        extension=".bin",
        content_type="application/octet-stream",
        accept="application/octet-stream; transfer-syntax=*",
        retrieval="bulkdata",
    ),
)
FORMATS: Final = {one.name: one for one in _TABLE}
DICOM: Final = FORMATS["dicom"]  # if a command names none
