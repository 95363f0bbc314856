"""Tests of the local DICOM store."""
