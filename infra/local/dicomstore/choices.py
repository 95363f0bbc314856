"""What no source settles about the service, decided here and nowhere else (fact sheet section 15
and its marks).

Each line names the section of the fact sheet that leaves it open. Change one when the live service
proves it wrong.
"""

from dataclasses import dataclass

FAILURE_REASON = (
    272  # 3.2, 3.5: the only code ever seen from the service, so used for every failure
)
DUPLICATE_DETAIL = (  # 3.4: known from import; on the store path only "already exists" is documented
    "An instance already exists in this DICOM Store with the same Study/Series/SOPInstance UID, "
    "but the DICOM files differ (checksum mismatch)."
)
OTHER_STUDY_DETAIL = (
    "The Study Instance UID differs from the study in the URL."  # 3.5: 409 for that instance alone
)
BEING_DELETED_DETAIL = (
    "A delete operation is running on this study or series."  # 3.5: the code is open
)
FAILED_ITEM_UIDS = True  # 3.2: failed items carry the Referenced UIDs when the file gave them
UNNAMED_PART = 400  # 3.1: a bulk part that no BulkDataURI names; nothing of the request is stored
MAX_UID = 64  # characters (3.1); leading zeros and equal UIDs on several levels are accepted
JSON_DETAIL_VR = "LT"  # 3.2: VR of FailureDetailJSON (0009,1097), as in the XML capture; with its private creator

EMPTY_SEARCH = 204  # 4.4: no match, no body
EMPTY_VALUE_MATCHES_ALL = True  # 4.2: `PatientName=` filters nothing (PS3.4 universal matching)
OVER_LIMIT = 400  # 4.3: limit or offset beyond the maximum
CHARSET_AS_KEY = 400  # 4.1: SpecificCharacterSet as a match key; as includefield it changes nothing

MISSING = 404  # 5.8, 6: GET and DELETE of what is not there, at every level; metadata as well (5.4), and the
# bulkdata of an attribute for which metadata gives no BulkDataURI (5.5; CONFIRMED for large
# sequences alone)
FRAME_OUT_OF_RANGE = 400  # 5.2
NOT_TRANSCODABLE = (
    406  # 5.6: a syntax this program or the service cannot make of the stored one; too large for it
)
SIGNED_PNG_RAISED = (
    True  # 5.2: frames as PNG, which has no sign: signed pixels are raised by half their range
)
RENDERED_MULTI_FRAME = (
    1  # 5.3: /rendered of a multi-frame instance shows its first frame; a list of frames is 400
)
DEFAULT_INSTANCE_SYNTAX = (
    "1.2.840.10008.1.2.1"  # 5.1: no Accept at all gives multipart, Explicit VR little endian
)
BULK_ITEM_BASE = 0  # 5.5: the first item of a sequence in a bulkdata path, as Google's mock counts

MISSING_STORE_WITH_AUTH = (
    403  # 15.5; without authentication it is 404, which says more to a developer
)
BAD_STORAGE_CLASS = 400  # 3.1
BAD_FILTER = 400  # 13: a filter file that cannot be read, or a line of it; a line that finds nothing is a failure


@dataclass(frozen=True)
class Options:
    """What the command line can change."""

    operation_s: float = (
        0.0  # 6: how long a delete or storage class operation runs; 0 is done when answered
    )
    stale_s: float = 0.0  # 4.3, 15.7: how long a search still finds a study or series whose last instance was deleted
    tokens: frozenset[str] = frozenset()  # bearer tokens with every right; none: no authentication
    read_tokens: frozenset[str] = frozenset()  # bearer tokens that may read only
    pubsub_host: str = ""  # host:port of a Pub/Sub emulator; empty: no notifications are sent
    storage_url: str = ""  # 13: http://host:port of a bucket server, to read filter files from
