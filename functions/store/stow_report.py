"""The DICOM store's report on a store request (PS3.18 section 10.5.3), instead of a guess from the
status.

It is DICOM JSON, as requested: an object or an array of one. A 200 may contain failures, and a 409
stored instances. The texts of failures are searched for two known meanings and then dropped: they
may contain patient data.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from functions.common import jsonvalues
from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import DataSet
from functions.common.resources import Resource, is_uid

_URL: Final = "00081190"
_REFERENCED: Final = "00081199"
_FAILED: Final = "00081198"
_INSTANCE: Final = "00081155"
_REASON: Final = "00081197"
# FailureDetail and FailureDetailJSON (fact sheet section 3.2).
_DETAILS: Final = ("00090097", "00091097")
# Duplicate SOP instance (PS3.18 annex I): other servers than Google's use it.
_DUPLICATE_REASON: Final = 0x0111
_EXISTS: Final = re.compile(r"already\s+exist", re.IGNORECASE)
_BUSY: Final = re.compile(
    r"\bdelet\w*\b.*\b(operation|progress|running)\b|\boperation\b.*\bdelet",
    re.IGNORECASE | re.DOTALL,
)
_RETRIEVE_URL: Final = re.compile(
    r"/studies/([0-9.]+)(?:/series/([0-9.]+)(?:/instances/([0-9.]+))?)?/?$", re.ASCII
)

# For one instance: it was stored; one of its UIDs already exists; a delete of its study or series
# is running; it was refused for another reason; the report is about another instance.
Kind = Literal["stored", "exists", "busy", "refused", "other"]


@dataclass(frozen=True)
class Named:
    """An instance as named in a report; missing UIDs are empty."""

    study: str = ""
    series: str = ""
    instance: str = ""

    def may_be(self, resource: Resource) -> bool:
        """Whether no named UID differs."""
        return (
            self.study in ("", resource.study)
            and self.series in ("", resource.series)
            and self.instance in ("", resource.instance)
        )

    @property
    def resource(self) -> Resource | None:
        """The instance, if all three UIDs are named."""
        uids = (self.study, self.series, self.instance)
        if not all(is_uid(uid) for uid in uids):
            return None
        return Resource(*uids)


@dataclass(frozen=True)
class Answer:
    """The result of one instance in a report.

    Args:
        kind: of the result.
        code: the failure reason of PS3.18, such as 272; 0 if the report has none.
        named: which instance.
    """

    kind: Kind
    code: int = 0
    named: Named = Named()


def read(body: bytes, resource: Resource) -> Answer | None:
    """The result of this instance, in the report on a request that contained only this instance.

    Returns:
        `stored` only when the report names exactly this instance, with its study and series, as
        stored. A file may contain a UID twice, and the store may read the other one. None if it is
        not a report, or names neither stored nor failed instances.
    """
    document = jsonvalues.parsed(body)
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    study = _named_by_url(document).study
    stored = [_named(item, study) for item in dicomjson.items(document, _REFERENCED)]
    failures = [_failure(item, study) for item in dicomjson.items(document, _FAILED)]
    # A failure that names this instance decides; one that names none only if it is not stored.
    ours = [failure for failure in failures if failure.named.may_be(resource)]
    for failure in ours:
        if failure.named.instance:
            return failure
    for named in stored:
        if named.resource == resource:
            return Answer("stored", named=named)
    if ours:
        return ours[0]
    others = [*stored, *(failure.named for failure in failures)]
    if not others:
        return None
    return Answer("other", named=others[0])


def _named(item: DataSet, study: str) -> Named:
    """The instance of an item; `study` is named above the items."""
    instance = dicomjson.text(item, _INSTANCE)
    by_url = _named_by_url(item)
    if instance and by_url.instance == instance:
        return by_url
    return Named(study=study, instance=instance)


def _named_by_url(data_set: object) -> Named:
    """The resource of the RetrieveURL, which ends in the path of a study or an instance."""
    found = _RETRIEVE_URL.search(dicomjson.text(data_set, _URL))
    if found is None:
        return Named()
    return Named(found[1], found[2] or "", found[3] or "")


def _failure(item: DataSet, study: str) -> Answer:
    detail = " ".join(dicomjson.text(item, tag) for tag in _DETAILS)
    code = dicomjson.number(item, _REASON)
    kind: Kind = "refused"
    if _EXISTS.search(detail) or code == _DUPLICATE_REASON:
        kind = "exists"
    elif _BUSY.search(detail):
        kind = "busy"
    return Answer(kind, code, _named(item, study))
