"""conformance: asks a real DICOM store of the Cloud Healthcare API what no public source says.

In the order in which data passes:

- `command`: the command line, `dicom-functions conformance`.
- `run`: asks the person, makes an empty DICOM store, puts every question, deletes the store.
- `client`: HTTP with the caller's credentials, to that one store and nothing else.
- `scans`: the synthetic instances that are stored, from nothing.
- `question`: what a question is, and the list of them all.
- `storing`, `searching`, `retrieving`, `deleting`: the questions, each with the answer that the
  local DICOM store assumes.
- `answers`: multipart bodies, store reports and PNG files, read.
- `report`: the table for a person, and the JSON report.
"""
