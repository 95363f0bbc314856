"""conformance: asks a real DICOM store of the Cloud Healthcare API what no public source answers.

In the order in which data passes:

- `command`: the command line, `dicom-functions conformance`.
- `run`: asks for confirmation, makes an empty DICOM store, asks every question, deletes the store.
- `client`: HTTP with the caller's credentials, to that one store only.
- `scans`: the synthetic instances that are stored.
- `question`: what a question is, and the list of them all.
- `storing`, `searching`, `retrieving`, `deleting`: the questions, each with the answer that the
  local DICOM store assumes.
- `answers`: reads multipart bodies, store reports and PNG files.
- `report`: the table for a person, and the JSON report.
"""
