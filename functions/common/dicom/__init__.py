"""Readers of DICOM data, as streams with bounded memory.

part10.py     the UIDs and the transfer syntax of a Part 10 file, by pydicom
multipart.py  the parts of a multipart/related body
dicomjson.py  the objects of a DICOM JSON array, and the values of one
"""
