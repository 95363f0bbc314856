"""A DICOM store of the Cloud Healthcare API on one machine: DICOMweb over SQLite and files."""
