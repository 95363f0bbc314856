"""Which attributes belong to which level, and the keys by which they are found (fact sheet 4.1,
4.4)."""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from pydicom.datadict import tag_for_keyword

from infra.local.dicomstore import model


def _tags(keywords: str) -> frozenset[str]:
    """The tags of keywords in a text, as eight hexadecimal digits."""
    return frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in keywords.split())


STUDY_DEFAULT = _tags(
    """
    SpecificCharacterSet StudyDate StudyTime AccessionNumber InstanceAvailability
    ReferringPhysicianName TimezoneOffsetFromUTC PatientName PatientID PatientBirthDate PatientSex
    StudyInstanceUID StudyID
    """
)
SERIES_DEFAULT = _tags(
    """
    SpecificCharacterSet Modality TimezoneOffsetFromUTC SeriesDescription SeriesInstanceUID
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime RequestAttributesSequence
    """
)
INSTANCE_DEFAULT = _tags(
    """
    SpecificCharacterSet SOPClassUID SOPInstanceUID InstanceAvailability TimezoneOffsetFromUTC
    InstanceNumber Rows Columns BitsAllocated NumberOfFrames
    """
)
STUDY_ALL = STUDY_DEFAULT | _tags(
    """
    PersonIdentificationCodeSequence PersonAddress PersonTelephoneNumbers PersonTelecomInformation
    InstitutionName InstitutionAddress InstitutionCodeSequence
    ReferringPhysicianIdentificationSequence ConsultingPhysicianName
    ConsultingPhysicianIdentificationSequence IssuerOfAccessionNumberSequence LocalNamespaceEntityID
    UniversalEntityID UniversalEntityIDType StudyDescription PhysiciansOfRecord
    PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy
    PhysiciansReadingStudyIdentificationSequence RequestingServiceCodeSequence
    ReferencedStudySequence ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence
    """
)
SERIES_ALL = SERIES_DEFAULT | _tags("SeriesNumber Laterality SeriesDate SeriesTime")

NAME, MODALITY = "00100010", "00080060"
STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
STUDY_KEYS = _tags("PatientName PatientID AccessionNumber ReferringPhysicianName StudyDate")
# The attributes that a search at each level matches.
KEYS = {
    "studies": STUDY_KEYS | {STUDY_UID},
    "series": STUDY_KEYS | {STUDY_UID, SERIES_UID, MODALITY},
    "instances": STUDY_KEYS | {STUDY_UID, SERIES_UID, MODALITY, INSTANCE_UID},
}
FUZZY = "fuzzy"  # the key under which each token of a patient's name is found


class Levels(NamedTuple):
    """An instance's attributes of its study and series: search keys, and attributes as lines."""

    modality: str
    keys: frozenset[tuple[str, str]]
    study: str
    series: str


def levels(lines: Iterable[str]) -> Levels:
    """The levels above an instance, from all its attributes."""
    keys: set[tuple[str, str]] = set()
    modality = ""
    for line in lines:
        tag = line[1:9]
        if tag in STUDY_KEYS:
            keys.update((tag, value) for value in _values(line))
        elif tag == MODALITY:
            modality = "\\".join(_values(line))
    for tag, value in list(keys):
        if tag == NAME:
            keys.update((FUZZY, token) for token in tokens(value))
    return Levels(
        modality=modality,
        keys=frozenset(keys),
        study="\n".join(model.pick(lines, STUDY_ALL)),
        series="\n".join(model.pick(lines, SERIES_ALL)),
    )


def _values(line: str) -> list[str]:
    """The values of an attribute line to match against; a name also by each of its component
    groups."""
    found = []
    attribute = json.loads("{" + line + "}")[line[1:9]]
    for value in attribute.get("Value", ()):
        if isinstance(value, dict):
            groups = [value.get(group, "") for group in model.NAME_GROUPS]
            found += [group for group in groups if group]
            found.append("=".join(groups).rstrip("="))
        elif value is not None:
            found.append(str(value))
    return found


def tokens(name: str) -> set[str]:
    """A name's parts for fuzzy matching: split at `^`, `=` and space, in one case and one Unicode
    form."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return set(re.split(r"[\^=\s]+", folded)) - {""}
