"""The choices where no source says what the service does, all in this file (fact sheet section 15
and its marks).

Each line names the section of the fact sheet with the open point. Change it if the live service
behaves differently.
"""

from dataclasses import dataclass

# --- store ---

# 3.2, 3.5: the only code ever seen from the service, so used for every failure.
FAILURE_REASON = 272
# 3.4: known from import; on the store path only "already exists" is documented.
DUPLICATE_DETAIL = (
    "An instance already exists in this DICOM Store with the same Study/Series/SOPInstance UID, "
    "but the DICOM files differ (checksum mismatch)."
)
# 3.5: 409 for that instance alone.
OTHER_STUDY_DETAIL = "The Study Instance UID differs from the study in the URL."
# 3.5: the code is open.
BEING_DELETED_DETAIL = "A delete operation is running on this study or series."
# 3.2: failed items carry the Referenced UIDs when the file gave them.
FAILED_ITEM_UIDS = True
# 3.1: a bulk part that no BulkDataURI names; nothing of the request is stored.
UNNAMED_PART = 400
# 3.1: characters; leading zeros and equal UIDs on several levels are accepted.
MAX_UID = 64
# 3.2: VR of FailureDetailJSON (0009,1097), as in the XML capture; with its private creator.
JSON_DETAIL_VR = "LT"
# 3.1: an invalid Storage-Class.
BAD_STORAGE_CLASS = 400
# 17: `Accept: application/dicom` on a store request, which the how-to says must be passed, gives
# the default answer. Its own samples send no Accept; a 406 would make its text wrong.
STORE_ACCEPTS_DICOM = True
# 17: a store request with the Content-Type that PowerShell gives the how-to's sample: its body is
# taken for one file, as that of application/dicom.
FORM_IS_DICOM = True
# 3.1: an image part whose Content-Type names no transfer syntax has the one of its data set, and
# one that is not what it says it is gets the transfer syntax that its codestream is.
PART_SYNTAX_FROM_CODESTREAM = True

# --- search ---

# 4.4: no match, no body.
EMPTY_SEARCH = 204
# 4.2: `PatientName=` filters nothing (PS3.4 universal matching).
EMPTY_VALUE_MATCHES_ALL = True
# 4.3: limit or offset beyond the maximum.
OVER_LIMIT = 400
# 4.1: SpecificCharacterSet as a match key; as includefield it changes nothing.
CHARSET_AS_KEY = 400

# --- retrieve ---

# 5.8, 6: GET and DELETE of what is not there, at every level; metadata as well (5.4), and the
# bulkdata of an attribute for which metadata gives no BulkDataURI (5.5; CONFIRMED for large
# sequences alone).
MISSING = 404
# 5.2
FRAME_OUT_OF_RANGE = 400
# 5.6: a syntax this program or the service cannot make of the stored one; too large for it.
NOT_TRANSCODABLE = 406
# 5.2: frames as PNG, which has no sign: signed pixels are raised by half their range.
SIGNED_PNG_RAISED = True
# 5.3: /rendered of a multi-frame instance shows its first frame; a list of frames is 400.
RENDERED_MULTI_FRAME = 1
# 9: pixels of a rendered viewport; 10,000 a side is documented, their product is not.
MAX_VIEWPORT_PIXELS = 16 << 20
# 5.1: no Accept at all gives multipart, Explicit VR little endian.
DEFAULT_INSTANCE_SYNTAX = "1.2.840.10008.1.2.1"
# 17: frames that are decoded from YBR_FULL or YBR_FULL_422 come as RGB, as the transcoded instance
# has them, and as EZ-WSI-DICOMweb and Orthanc's tests expect; metadata goes on to describe what is
# stored. Native pixels that stay native are not touched.
DECODED_COLOURS = "RGB"
# 5.7, 17: frames of whole instances, studies and series as images: the service's 406 of 2019 lists
# them and its own dcmweb asks for them; the conformance statement does not.
PIXELS_OF_INSTANCES = True
# 17: `Accept: application/json` is no other word for application/dicom+json: the conformance
# statement lists the latter alone.
JSON_IS_DICOM_JSON = False
# 17: parts have no Content-Location: no capture of the service shows one.
PART_LOCATIONS = False
# 5.5: the first item of a sequence in a bulkdata path, as Google's mock counts.
BULK_ITEM_BASE = 0
# 5.5, 17: URIs have the documented form `bulkdata/7FE00010`; the form with a `/` behind it, the
# only one that fits discovery's pattern, is answered as well.
BULK_TRAILING_SLASH = True
# 5.4: PS3.19 A.1.5 asks for xml:space; no namespace, as in the service's store reports.
METADATA_XML_ROOT = '<NativeDicomModel xml:space="preserve">'

# --- resources ---

# 15.5; without authentication it is 404, which says more to a developer.
MISSING_STORE_WITH_AUTH = 403
# 13: a filter file that cannot be read, or a line of it; a line that finds nothing is a failure.
BAD_FILTER = 400
# 1: a dataset that nobody created is there as soon as a store is created in it.
DATASETS_IMPLICIT = True
# 1: pageSize over the documented maximum; a pageSize or pageToken that is none.
BAD_PAGE = 400
# 1, 14: PUT and PATCH on v1, where discovery has neither.
NOT_IN_V1 = 405
# 8: the words of a 404 for a path that the API does not have, as of Google's other APIs.
NO_METHOD = "Method not found."


@dataclass(frozen=True)
class Options:
    """What the command line can change."""

    # 6: seconds that a delete or storage class operation runs; 0 is done when answered.
    operation_s: float = 0.0
    # 4.3, 15.7: seconds that a search still finds a study or series whose last instance is deleted.
    stale_s: float = 0.0
    # Bearer tokens with every right; without any there is no authentication.
    tokens: frozenset[str] = frozenset()
    # Bearer tokens that may read only.
    read_tokens: frozenset[str] = frozenset()
    # host:port of a Pub/Sub emulator; empty: no notifications are sent.
    pubsub_host: str = ""
    # 13: http://host:port of a bucket server, to read filter files from.
    storage_url: str = ""
