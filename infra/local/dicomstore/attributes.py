"""Which attributes belong to which level, and how an instance is indexed by them (sheet 4.1, 4.4)."""

import json
import re
import unicodedata

from pydicom.datadict import tag_for_keyword

from infra.local.dicomstore import model
from infra.local.dicomstore.index import Found, Uids
from infra.local.dicomstore.scan import File


def _tags(keywords: str) -> frozenset[str]:
    return frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in keywords.split())


STUDY_DEFAULT = _tags(
    "SpecificCharacterSet StudyDate StudyTime AccessionNumber InstanceAvailability ReferringPhysicianName"
    " TimezoneOffsetFromUTC PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyID"
)
SERIES_DEFAULT = _tags(
    "SpecificCharacterSet Modality TimezoneOffsetFromUTC SeriesDescription SeriesInstanceUID"
    " PerformedProcedureStepStartDate PerformedProcedureStepStartTime RequestAttributesSequence"
)
INSTANCE_DEFAULT = _tags(
    "SpecificCharacterSet SOPClassUID SOPInstanceUID InstanceAvailability TimezoneOffsetFromUTC InstanceNumber"
    " Rows Columns BitsAllocated NumberOfFrames"
)
STUDY_ALL = STUDY_DEFAULT | _tags(
    "PersonIdentificationCodeSequence PersonAddress PersonTelephoneNumbers PersonTelecomInformation InstitutionName"
    " InstitutionAddress InstitutionCodeSequence ReferringPhysicianIdentificationSequence ConsultingPhysicianName"
    " ConsultingPhysicianIdentificationSequence IssuerOfAccessionNumberSequence LocalNamespaceEntityID"
    " UniversalEntityID UniversalEntityIDType StudyDescription PhysiciansOfRecord"
    " PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy"
    " PhysiciansReadingStudyIdentificationSequence RequestingServiceCodeSequence ReferencedStudySequence"
    " ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence"
)
SERIES_ALL = SERIES_DEFAULT | _tags("SeriesNumber Laterality SeriesDate SeriesTime")

NAME, MODALITY = "00100010", "00080060"
STUDY_KEYS = _tags("PatientName PatientID AccessionNumber ReferringPhysicianName StudyDate")
FUZZY = "fuzzy"  # the key under which each token of a patient's name is found


def instance_of(file: File) -> Found:
    """What the index keeps of a file."""
    lines = model.lines(file)
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
    sop_class = file.text(0x00080016) or file.text(0x00020002)
    return Found(
        uids=Uids(file.text(0x0020000D), file.text(0x0020000E), file.text(0x00080018)),
        sop_class=sop_class,
        syntax=file.transfer_syntax,
        modality=modality,
        keys=frozenset(keys),
        study_lines="\n".join(model.pick(lines, STUDY_ALL)),
        series_lines="\n".join(model.pick(lines, SERIES_ALL)),
        lines="\n".join(model.pick(lines, INSTANCE_DEFAULT)),
        metadata="\n".join(lines),
    )


def _values(line: str) -> list[str]:
    """The values of an attribute line to match against; a name also by each of its component groups."""
    found = []
    for value in json.loads("{" + line + "}")[line[1:9]].get("Value", ()):
        if isinstance(value, dict):
            groups = [value.get(group, "") for group in model.NAME_GROUPS]
            found += [group for group in groups if group] + ["=".join(groups).rstrip("=")]
        elif value is not None:
            found.append(str(value))
    return found


def tokens(name: str) -> set[str]:
    """A name's parts for fuzzy matching: split at `^`, `=` and space, in one case and one Unicode form."""
    return set(re.split(r"[\^=\s]+", unicodedata.normalize("NFKC", name).casefold())) - {""}
