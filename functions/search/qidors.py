"""QIDO-RS parameters: what callers send, turned into what the DICOM store takes (fact sheet section
4).

The store matches whole values of a few attributes and refuses everything else. What a caller means
plainly is translated here, and said in a warning where the answer is not exactly what PS3.18 would
give; the rest is refused by the parameter's name. docs/search.md lists the translations.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlencode

from functions.common.resources import Resource, is_uid
from functions.search.answers import RefusedError

# What a search returns by default and, at studies and series, what it returns when asked (fact
# sheet section 4.4).
_DEFAULT: Final = {
    "studies": "SpecificCharacterSet=00080005 StudyDate=00080020 StudyTime=00080030 AccessionNumber=00080050"
    " InstanceAvailability=00080056 ReferringPhysicianName=00080090 TimezoneOffsetFromUTC=00080201"
    " PatientName=00100010 PatientID=00100020 PatientBirthDate=00100030 PatientSex=00100040"
    " StudyInstanceUID=0020000D StudyID=00200010",
    "series": "Modality=00080060 SeriesDescription=0008103E SeriesInstanceUID=0020000E"
    " PerformedProcedureStepStartDate=00400244 PerformedProcedureStepStartTime=00400245"
    " RequestAttributesSequence=00400275",
    "instances": "SOPClassUID=00080016 SOPInstanceUID=00080018 InstanceNumber=00200013 Rows=00280010"
    " Columns=00280011 BitsAllocated=00280100 NumberOfFrames=00280008",
}
_FURTHER: Final = {
    "studies": "PersonIdentificationCodeSequence=00401101 PersonAddress=00401102 PersonTelephoneNumbers=00401103"
    " PersonTelecomInformation=00401104 InstitutionName=00080080 InstitutionAddress=00080081"
    " InstitutionCodeSequence=00080082 ReferringPhysicianIdentificationSequence=00080096"
    " ConsultingPhysicianName=0008009C ConsultingPhysicianIdentificationSequence=0008009D"
    " IssuerOfAccessionNumberSequence=00080051 LocalNamespaceEntityID=00400031 UniversalEntityID=00400032"
    " UniversalEntityIDType=00400033 StudyDescription=00081030 PhysiciansOfRecord=00081048"
    " PhysiciansOfRecordIdentificationSequence=00081049 NameOfPhysiciansReadingStudy=00081060"
    " PhysiciansReadingStudyIdentificationSequence=00081062 RequestingServiceCodeSequence=00321034"
    " ReferencedStudySequence=00081110 ProcedureCodeSequence=00081032"
    " ReasonForPerformedProcedureCodeSequence=00401012",
    "series": "SeriesNumber=00200011 Laterality=00200060 SeriesDate=00080021 SeriesTime=00080031",
    "instances": "",
}
# What the store never has; it answers 400 to some of these and they are asked for by every viewer.
_NEVER: Final = (
    "AvailableTransferSyntaxUID=00083002 ModalitiesInStudy=00080061 NumberOfPatientRelatedStudies=00201200"
    " NumberOfStudyRelatedSeries=00201206 NumberOfStudyRelatedInstances=00201208"
    " NumberOfSeriesRelatedInstances=00201209 SOPClassesInStudy=00080062 RetrieveURL=00081190"
)
_STUDY_KEYS: Final = (
    "StudyInstanceUID",
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDate",
)
KEYS: Final = {
    "studies": _STUDY_KEYS,
    "series": (*_STUDY_KEYS, "SeriesInstanceUID", "Modality"),
    "instances": (*_STUDY_KEYS, "SeriesInstanceUID", "Modality", "SOPInstanceUID"),
}
_UID_KEYS: Final = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"})
UID_TAG: Final = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
LIMIT_DEFAULT: Final = {"studies": 100, "series": 100, "instances": 1000}
LIMIT_MAX: Final = {"studies": 5000, "series": 5000, "instances": 50_000}
OFFSET_MAX: Final = 1_000_000
_SEARCHES_MAX: Final = 50
_INCLUDE_MAX: Final = 100
_PAIRS_MAX: Final = 200
_VALUE_LENGTH: Final = 1024
_NAME: Final = re.compile(r"[\w.]{1,64}", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{8}|[0-9]{8}-|-[0-9]{8}|[0-9]{8}-[0-9]{8}", re.ASCII)
_MODALITY: Final = re.compile(r"[A-Z][A-Z0-9 _]{0,15}", re.ASCII)
_ATTRIBUTE: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9]{2,63}|[0-9A-Fa-f]{8})(\.([A-Za-z][A-Za-z0-9]{2,63}|[0-9A-Fa-f]{8})){0,5}"
)


def _table(text: str) -> dict[str, str]:
    return dict(item.split("=") for item in text.split())


TAG_OF: Final = _table(" ".join([*_DEFAULT.values(), *_FURTHER.values(), _NEVER]))
KEYWORD_OF: Final = {tag: keyword for keyword, tag in TAG_OF.items()}
DEFAULT: Final = {level: tuple(_table(text)) for level, text in _DEFAULT.items()}
STUDY_TAGS: Final = frozenset(_table(_DEFAULT["studies"] + " " + _FURTHER["studies"]).values())
_KNOWN: Final = {
    "studies": frozenset(_table(_DEFAULT["studies"] + " " + _FURTHER["studies"])),
    "series": frozenset(
        _table(" ".join(_DEFAULT[x] + " " + _FURTHER[x] for x in ("studies", "series")))
    ),
}
_UNHELPFUL: Final = frozenset(_table(_NEVER))


@dataclass(frozen=True)
class Query:
    """A search as the store takes it.

    Args:
        level: studies, series or instances: the rows of the answer.
        resource: what it is limited to by the path.
        searches: the filters of one search, or of several whose rows are put together (a list of
            values).
        store_level: what the store is asked for; `series` for a modality at study level.
        include: keywords or tags, or `all`.
        limit, offset: rows.
        fuzzy: whether names are matched by the beginnings of their parts.
        warnings: what was translated or left out, in words for the Warning header.
    """

    level: str
    resource: Resource | None
    searches: tuple[dict[str, str], ...]
    store_level: str
    include: tuple[str, ...]
    limit: int
    offset: int
    fuzzy: bool
    warnings: tuple[str, ...]

    @property
    def merged(self) -> bool:
        """Whether the answer is put together from several of the store's."""
        return len(self.searches) > 1 or self.store_level != self.level

    def path(self) -> str:
        """The path of the store's search, below `dicomWeb`."""
        return f"{self.resource}/{self.store_level}" if self.resource else self.store_level

    def parameters(
        self, filters: Mapping[str, str], limit: int, offset: int, *, include: bool = True
    ) -> str:
        """The query string of one of the store's searches."""
        pairs = list(filters.items())
        if self.fuzzy:
            pairs.append(("fuzzymatching", "true"))
        if include:
            pairs += [("includefield", name) for name in self.include]
        pairs.append(("limit", str(limit)))
        if offset:
            pairs.append(("offset", str(offset)))
        return urlencode(pairs, quote_via=quote)


def decode(text: str) -> list[tuple[str, str]]:
    """The pairs of a query string or a form.

    Raises:
        RefusedError: invalid_parameter, for what is not UTF-8.
    """
    pairs = []
    for item in filter(None, text.split("&")):
        name, _, value = item.replace("+", " ").partition("=")
        try:
            pairs.append((unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()))
        except UnicodeDecodeError:
            raise RefusedError("invalid_parameter", "a parameter is not UTF-8") from None
    return pairs


def translate(
    level: str,
    resource: Resource | None,
    pairs: Iterable[tuple[str, str]],
    fixed: Mapping[str, str] | None = None,
) -> Query:
    """Read a caller's parameters.

    Args:
        fixed: filters that this caller cannot leave out or change.

    Raises:
        RefusedError: invalid_parameter, which names it; forbidden, for a parameter that is fixed
            for this caller.
    """
    return _Reader(level, resource).read(pairs, fixed or {})


class _Reader:
    def __init__(self, level: str, resource: Resource | None) -> None:
        self.level = level
        self.resource = resource
        self.filters: dict[str, list[str]] = {}
        self.include: list[str] = []
        self.universal: list[str] = []
        self.single: dict[str, str] = {}
        self.warnings: list[str] = []
        self.fuzzy = False

    def read(self, pairs: Iterable[tuple[str, str]], fixed: Mapping[str, str]) -> Query:
        for count, (name, value) in enumerate(pairs):
            if count >= _PAIRS_MAX:
                raise RefusedError("invalid_parameter", f"more than {_PAIRS_MAX} parameters")
            self._pair(_checked_name(name), value)
        limit, offset = self._limit(), self._number("offset", 0, OFFSET_MAX, 0)
        fuzzy = self.single.get("fuzzymatching", "false").lower()
        if fuzzy not in ("true", "false"):
            raise _bad("fuzzymatching", "takes true or false")
        self.fuzzy |= fuzzy == "true"
        for keyword, value in fixed.items():
            if self.filters.get(keyword, [value]) != [value]:
                raise RefusedError("forbidden", "this parameter is fixed for this caller", keyword)
            self.filters[keyword] = [value]
        store_level = (
            "series" if self.level == "studies" and "Modality" in self.filters else self.level
        )
        return Query(
            self.level,
            self.resource,
            self._searches(),
            store_level,
            self._included(store_level),
            limit,
            offset,
            self.fuzzy,
            tuple(self.warnings),
        )

    def _pair(self, name: str, value: str) -> None:
        if len(value) > _VALUE_LENGTH or not value.isprintable():
            raise _bad(name, f"takes up to {_VALUE_LENGTH} printable characters")
        if name == "includefield":
            self.include += [item.strip() for item in value.split(",")]
            if len(self.include) > _INCLUDE_MAX:
                raise _bad(name, f"takes at most {_INCLUDE_MAX} attributes")
        elif name in ("limit", "offset", "fuzzymatching"):
            if name in self.single:
                raise _bad(name, "is given more than once")
            self.single[name] = value
        else:
            self._filter(name, value)

    def _filter(self, name: str, value: str) -> None:
        keyword = KEYWORD_OF.get(name.upper(), name)
        if keyword == "ModalitiesInStudy" and self.level == "studies":
            keyword = "Modality"
        if keyword not in KEYS[self.level] and not (
            keyword == "Modality" and self.level == "studies"
        ):
            raise _bad(
                name, f"cannot be searched for here; what can: {', '.join(KEYS[self.level])}"
            )
        if keyword in self.filters:
            raise _bad(name, "is given more than once")
        if value.strip("*") == "":  # universal matching: any value, or none
            self.universal.append(keyword)
            return
        values = [value]
        if keyword in _UID_KEYS or keyword == "Modality":
            values = [item for item in re.split(r"[,\\]", value) if item]
        if not values:
            raise _bad(name, "takes at least one value between the commas")
        self.filters[keyword] = [self._value(name, keyword, item) for item in values]

    def _value(self, name: str, keyword: str, value: str) -> str:
        if keyword in _UID_KEYS and not is_uid(value):
            raise _bad(name, "takes UIDs: digits and dots, at most 64 characters")
        if keyword == "StudyDate" and not _DATE.fullmatch(value):
            raise _bad(name, "takes YYYYMMDD or a range: YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD")
        if keyword == "Modality" and not _MODALITY.fullmatch(value):
            raise _bad(name, "takes modalities such as CT, separated by commas")
        if keyword == "PatientName" and ("*" in value or "?" in value):
            return self._wildcard(name, value)
        if "*" in value or "?" in value:
            raise _bad(name, "is matched whole by the DICOM store: no * and no ?")
        if "\\" in value:
            raise _bad(name, "takes one value")
        return value

    def _wildcard(self, name: str, value: str) -> str:
        inner = value.strip("*")
        if not value.endswith("*") or "*" in inner or "?" in inner:
            raise _bad(name, "takes a * at the end only")
        self.fuzzy = True
        self._warn("PatientName with * is matched fuzzily: any part of the name that begins so")
        return inner.rstrip("^") or inner

    def _searches(self) -> tuple[dict[str, str], ...]:
        lists = [name for name, values in self.filters.items() if len(values) > 1]
        if math.prod(map(len, self.filters.values())) > _SEARCHES_MAX:
            raise _bad(lists[0], f"a list of values may lead to {_SEARCHES_MAX} searches at most")
        names = list(self.filters)
        return tuple(
            dict(zip(names, one, strict=True)) for one in itertools.product(*self.filters.values())
        )

    def _limit(self) -> int:
        most = LIMIT_MAX[self.level]
        limit = self._number("limit", 1, 10**9, LIMIT_DEFAULT[self.level])
        if limit > most:
            self._warn(f"limit was lowered to {most}")
        return min(limit, most)

    def _number(self, name: str, least: int, most: int, default: int) -> int:
        text = self.single.get(name, str(default))
        if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or not least <= int(text) <= most:
            raise _bad(name, f"takes a whole number from {least} to {most}")
        return int(text)

    def _included(self, store_level: str) -> tuple[str, ...]:
        wanted: dict[str, None] = {}
        dropped: dict[str, None] = {}
        for item in filter(None, self.include + self.universal):
            keyword = KEYWORD_OF.get(item.upper(), item)
            if not _ATTRIBUTE.fullmatch(item):
                raise _bad(
                    "includefield",
                    "takes keywords or tags of eight digits, separated by commas, or all",
                )
            if keyword == "all" or self._known(keyword):
                wanted[keyword] = None
            else:
                dropped[keyword] = None
        if dropped:
            self._warn(f"the DICOM store cannot include {' '.join(itertools.islice(dropped, 20))}")
        if store_level != self.level:  # a study's row is made from one of its series'
            wanted |= dict.fromkeys(_KNOWN["studies"] if "all" in wanted else DEFAULT["studies"])
            wanted.pop("all", None)
        return ("all",) if "all" in wanted else tuple(wanted)

    def _known(self, keyword: str) -> bool:
        if (known := _KNOWN.get(self.level)) is not None:
            return keyword in known
        # Any attribute of an instance can be included; the store says so when it does not know one.
        return keyword not in _UNHELPFUL and "." not in keyword and not keyword[0].islower()

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RefusedError(
            "invalid_parameter", "a parameter's name is a keyword or a tag of eight digits"
        )
    return name


def _bad(name: str, message: str) -> RefusedError:
    return RefusedError("invalid_parameter", message, name)
