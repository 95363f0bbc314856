"""The attributes of a search: what the DICOM store can match and what it can include.

Fact sheet sections 4.1 (keys) and 4.4 (attributes of a result).
"""

from typing import Final

# By level, the default attributes of a search.
_DEFAULT: Final = {
    "studies": {
        "SpecificCharacterSet": "00080005",
        "StudyDate": "00080020",
        "StudyTime": "00080030",
        "AccessionNumber": "00080050",
        "InstanceAvailability": "00080056",
        "ReferringPhysicianName": "00080090",
        "TimezoneOffsetFromUTC": "00080201",
        "PatientName": "00100010",
        "PatientID": "00100020",
        "PatientBirthDate": "00100030",
        "PatientSex": "00100040",
        "StudyInstanceUID": "0020000D",
        "StudyID": "00200010",
    },
    "series": {
        "Modality": "00080060",
        "SeriesDescription": "0008103E",
        "SeriesInstanceUID": "0020000E",
        "PerformedProcedureStepStartDate": "00400244",
        "PerformedProcedureStepStartTime": "00400245",
        "RequestAttributesSequence": "00400275",
    },
    "instances": {
        "SOPClassUID": "00080016",
        "SOPInstanceUID": "00080018",
        "InstanceNumber": "00200013",
        "Rows": "00280010",
        "Columns": "00280011",
        "BitsAllocated": "00280100",
        "NumberOfFrames": "00280008",
    },
}
# Attributes that it returns on request. Instances have no such list: any attribute may be included.
_ON_REQUEST: Final = {
    "studies": {
        "PersonIdentificationCodeSequence": "00401101",
        "PersonAddress": "00401102",
        "PersonTelephoneNumbers": "00401103",
        "PersonTelecomInformation": "00401104",
        "InstitutionName": "00080080",
        "InstitutionAddress": "00080081",
        "InstitutionCodeSequence": "00080082",
        "ReferringPhysicianIdentificationSequence": "00080096",
        "ConsultingPhysicianName": "0008009C",
        "ConsultingPhysicianIdentificationSequence": "0008009D",
        "IssuerOfAccessionNumberSequence": "00080051",
        "LocalNamespaceEntityID": "00400031",
        "UniversalEntityID": "00400032",
        "UniversalEntityIDType": "00400033",
        "StudyDescription": "00081030",
        "PhysiciansOfRecord": "00081048",
        "PhysiciansOfRecordIdentificationSequence": "00081049",
        "NameOfPhysiciansReadingStudy": "00081060",
        "PhysiciansReadingStudyIdentificationSequence": "00081062",
        "RequestingServiceCodeSequence": "00321034",
        "ReferencedStudySequence": "00081110",
        "ProcedureCodeSequence": "00081032",
        "ReasonForPerformedProcedureCodeSequence": "00401012",
    },
    "series": {
        "SeriesNumber": "00200011",
        "Laterality": "00200060",
        "SeriesDate": "00080021",
        "SeriesTime": "00080031",
    },
}
# Attributes that the store never has. It answers 400 to some of these, which every viewer requests.
NEVER: Final = {
    "AvailableTransferSyntaxUID": "00083002",
    "ModalitiesInStudy": "00080061",
    "NumberOfPatientRelatedStudies": "00201200",
    "NumberOfStudyRelatedSeries": "00201206",
    "NumberOfStudyRelatedInstances": "00201208",
    "NumberOfSeriesRelatedInstances": "00201209",
    "SOPClassesInStudy": "00080062",
    "RetrieveURL": "00081190",
}

STUDY_UID: Final = "StudyInstanceUID"
SERIES_UID: Final = "SeriesInstanceUID"
INSTANCE_UID: Final = "SOPInstanceUID"
_STUDY_KEYS: Final = (
    STUDY_UID,
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDate",
)
_SERIES_KEYS: Final = (*_STUDY_KEYS, SERIES_UID, "Modality")
# By level, the keys that the store can match.
KEYS: Final = {
    "studies": _STUDY_KEYS,
    "series": _SERIES_KEYS,
    "instances": (*_SERIES_KEYS, INSTANCE_UID),
}

TAG_OF: Final[dict[str, str]] = {
    **_DEFAULT["studies"],
    **_DEFAULT["series"],
    **_DEFAULT["instances"],
    **_ON_REQUEST["studies"],
    **_ON_REQUEST["series"],
    **NEVER,
}
KEYWORD_OF: Final = {tag: keyword for keyword, tag in TAG_OF.items()}
UID_TAGS: Final = (TAG_OF[STUDY_UID], TAG_OF[SERIES_UID], TAG_OF[INSTANCE_UID])
STUDY_DEFAULTS: Final = tuple(_DEFAULT["studies"])
_OF_STUDY: Final = {**_DEFAULT["studies"], **_ON_REQUEST["studies"]}
_OF_SERIES: Final = {**_DEFAULT["series"], **_ON_REQUEST["series"]}
STUDY_TAGS: Final = frozenset(_OF_STUDY.values())
# By level, the attributes that can be included; a series' row may have its study's attributes too.
INCLUDABLE: Final = {
    "studies": frozenset(_OF_STUDY),
    "series": frozenset({*_OF_STUDY, *_OF_SERIES}),
}
