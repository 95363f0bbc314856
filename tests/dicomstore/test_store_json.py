"""Store from DICOM JSON and bulk parts: section 3.1, form 3, and the how-to's worked example."""

import copy
import io
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from tests.dicomstore.kit import (
    ELE,
    SC,
    Client,
    as_json,
    failures,
    gradient,
    multipart,
    parts_of,
)

JPEG = "1.2.840.10008.1.2.4."
KIND = 'multipart/related; type="application/dicom+json"; boundary=testboundary0c1d2e3f'
PATH = "studies/1.5/series/1.5.1/instances/1.5.1.1"
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


def jpeg(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=95)
    return file.getvalue()


def metadata(
    syntax: str = JPEG + "50", rows: int = 16, columns: int = 24, **more: Any
) -> dict[str, Any]:
    """The how-to's template, for one grey sample."""
    found = {
        "00020010": {"vr": "UI", "Value": [syntax]},
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080016": {"vr": "UI", "Value": [SC]},
        "00080018": {"vr": "UI", "Value": ["1.5.1.1"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]},
        "0020000D": {"vr": "UI", "Value": ["1.5"]},
        "0020000E": {"vr": "UI", "Value": ["1.5.1"]},
        "00280002": {"vr": "US", "Value": [1]},
        "00280004": {"vr": "CS", "Value": ["MONOCHROME2"]},
        "00280008": {"vr": "IS", "Value": [1]},
        "00280010": {"vr": "US", "Value": [rows]},
        "00280011": {"vr": "US", "Value": [columns]},
        "00280100": {"vr": "US", "Value": [8]},
        "00280101": {"vr": "US", "Value": [8]},
        "00280102": {"vr": "US", "Value": [7]},
        "00280103": {"vr": "US", "Value": [0]},
        "7FE00010": {"vr": "OB", "BulkDataURI": "jpeg-image"},
    }
    return {**found, **more}


TYPE = "application/dicom+json; transfer-syntax=" + ELE


def send(
    store: Client, datasets: Any, *parts: tuple[str, str, bytes], kind: str = TYPE, **headers: str
) -> Any:
    """POST data sets and (Content-Location, Content-Type, bytes) parts; `kind` is the first part's
    Content-Type."""
    first = ({"Content-Type": kind}, as_json(datasets))
    rest = [
        ({"Content-Location": where, "Content-Type": kind}, data) for where, kind, data in parts
    ]
    return store.post(multipart([first, *rest]), KIND, **headers)


def fetched(store: Client) -> pydicom.Dataset:
    """The stored file as pydicom reads it."""
    content = store.get(PATH, "application/dicom; transfer-syntax=*").content
    return pydicom.dcmread(io.BytesIO(content))


def test_3_1_jpeg_becomes_a_file_that_decodes_to_the_image_sent(store: Client) -> None:
    picture = jpeg(gradient())
    answer = send(
        store, [metadata()], ("jpeg-image", f"image/jpeg; transfer-syntax={JPEG}50", picture)
    )
    assert answer.status_code == 200
    assert "RetrieveURL" in answer.text
    ds = fetched(store)
    assert ds.file_meta.TransferSyntaxUID == JPEG + "50"
    assert ds.PatientName == "Müller^Jörg"
    other = np.asarray(Image.open(io.BytesIO(picture)))
    assert np.allclose(ds.pixel_array.astype(int), other, atol=2), (
        "two decoders, each within the rounding JPEG allows"
    )
    frames = store.get(
        PATH + "/frames/1", 'multipart/related; type="image/jpeg"; transfer-syntax=' + JPEG + "50"
    )
    assert picture in frames.content


@pytest.mark.parametrize(
    ("syntax", "kind"),
    [
        (JPEG + "80", "image/jls"),
        (JPEG + "90", "image/jp2"),
        ("1.2.840.10008.1.2.5", "image/dicom-rle"),
    ],
)
def test_3_1_other_compressed_parts_decode_to_the_image_sent(
    store: Client, syntax: str, kind: str
) -> None:
    array = gradient(64, 64)
    about: dict[str, Any] = {
        "rows": 64,
        "columns": 64,
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        "bits_stored": 8,
    }
    more: dict[str, Any] = {
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
    }
    data = get_encoder(UID(syntax)).encode(array, **about, **more)
    answer = send(
        store,
        [metadata(syntax, 64, 64)],
        ("jpeg-image", f"{kind}; transfer-syntax={syntax}", bytes(data)),
    )
    assert answer.status_code == 200, answer.text
    assert np.array_equal(fetched(store).pixel_array, array)


@pytest.mark.parametrize("syntax", [ELE, "1.2.840.10008.1.2"])
def test_3_1_raw_pixels(store: Client, syntax: str) -> None:
    array = gradient(3, 5)  # an odd number of bytes: padded
    answer = send(
        store, [metadata(syntax, 3, 5)], ("jpeg-image", "application/octet-stream", array.tobytes())
    )
    assert answer.status_code == 200, answer.text
    assert np.array_equal(fetched(store).pixel_array, array)


def test_3_1_attributes_after_the_bulk_one_and_inline_binary(store: Client) -> None:
    data = metadata(ELE)
    data["00420011"] = {"vr": "OB", "BulkDataURI": "pdf"}
    del data["7FE00010"]
    data["00720026"] = {"vr": "AT", "Value": ["00100010"]}
    data["00660023"] = {"vr": "OW", "InlineBinary": "AAECAw=="}
    answer = send(store, [data], ("pdf", "application/octet-stream", b"%PDF"))
    assert answer.status_code == 200, answer.text
    ds = fetched(store)
    assert ds.EncapsulatedDocument == b"%PDF"
    assert ds[0x00660023].value == b"\0\1\2\3"


def test_3_1_several_instances_in_one_request(store: Client) -> None:
    one = metadata()
    two = metadata()
    two["00080018"], two["7FE00010"] = (
        {"vr": "UI", "Value": ["1.5.1.2"]},
        {"vr": "OB", "BulkDataURI": "other"},
    )
    picture = jpeg(gradient())
    kind = f"image/jpeg; transfer-syntax={JPEG}50"
    assert (
        send(store, [one, two], ("other", kind, picture), ("jpeg-image", kind, picture)).status_code
        == 200
    )
    assert len(store.found("instances")) == 2


def test_3_1_a_bulk_data_uri_is_unique_across_the_request(store: Client) -> None:
    one = metadata()
    two = metadata()
    two["00080018"] = {"vr": "UI", "Value": ["1.5.1.2"]}
    answer = send(
        store, [one, two], ("jpeg-image", f"image/jpeg; transfer-syntax={JPEG}50", jpeg(gradient()))
    )
    assert answer.status_code == 409
    assert len(failures(answer)) == 1
    assert "unique" in failures(answer)[0][1]


def test_3_1_an_instance_without_pixels_needs_no_part(store: Client) -> None:
    data = {
        tag: element for tag, element in metadata(ELE).items() if tag[:4] not in ("0028", "7FE0")
    }
    assert send(store, [data]).status_code == 200


def broken(change: str) -> dict[str, Any]:
    """A data set that breaks one rule."""
    data = copy.deepcopy(metadata())
    if change == "two bulk attributes":
        data["00420011"] = {"vr": "OB", "BulkDataURI": "jpeg-image"}
    elif change == "inline pixels":
        data["7FE00010"] = {"vr": "OB", "InlineBinary": "AAAA"}
    elif change == "no such part":
        data["7FE00010"]["BulkDataURI"] = "elsewhere"
    elif change == "other character set":
        data["00080005"]["Value"] = ["ISO_IR 100"]
    elif change.startswith("syntax "):
        data["00020010"]["Value"] = [change.split()[1]]
    elif change == "too large a number":
        data["00280010"] = {"vr": "US", "Value": [99999999]}
    elif change == "an item that is none":
        data["00400275"] = {"vr": "SQ", "Value": [5]}
    elif change == "a UID that is an object":
        data["0020000D"]["Value"] = {"a": 1}
    elif change == "a UID that is a number":
        data["0020000D"]["Value"] = 5
    elif change == "a class that is no text":
        data["00080016"]["Value"] = ["\ud800"]
    elif change == "a class that is null":
        data["00080016"]["Value"] = [None]
    elif change == "a URI that is a list":
        data["7FE00010"]["BulkDataURI"] = ["jpeg-image"]
    elif change == "a keyword":
        data["PixelData"] = data.pop("7FE00010")
    elif change == "a URI in an item":
        data["00880200"] = {"vr": "SQ", "Value": [{"7FE00010": data.pop("7FE00010")}]}
    elif change == "nested too deep":
        for _ in range(250):
            data["00400275"] = {
                "vr": "SQ",
                "Value": [{"00400275": data.get("00400275", {"vr": "SQ"})}],
            }
    elif change == "no data set tag":
        data["zz"] = {"vr": "OB"}
    elif change == "no such vr":
        data["00100020"] = {"vr": "WN", "Value": ["x"]}
    elif change == "no vr":
        data["00100020"] = {"Value": ["x"]}
    elif change == "not a data set":
        data["00280010"] = {"vr": "US", "Value": ["many"]}
    else:
        del data[change]
    return data


@pytest.mark.parametrize(
    "change",
    [
        *(
            "two bulk attributes",
            "inline pixels",
            "no such part",
            "other character set",
            "not a data set",
        ),
        *(
            "a class that is null",
            "a class that is no text",
            "a UID that is an object",
            "a UID that is a number",
            "a URI that is a list",
            "a keyword",
            "a URI in an item",
        ),
        *(
            "nested too deep",
            "too large a number",
            "an item that is none",
            "no data set tag",
            "no vr",
            "no such vr",
        ),
        *("syntax 1.2.840.10008.1.2.2", "syntax 1.2.840.10008.1.2.1.99", "syntax " + JPEG + "90"),
        *("00020010", "00080005", "00080016", "00080018", "0020000D", "0020000E"),
    ],
)
def test_3_1_a_data_set_that_breaks_a_rule_fails_alone(store: Client, change: str) -> None:
    good = {
        tag: element for tag, element in metadata(ELE).items() if tag[:4] not in ("0028", "7FE0")
    }
    good["00080018"] = {"vr": "UI", "Value": ["1.5.1.9"]}
    part = ("jpeg-image", f"image/jpeg; transfer-syntax={JPEG}50", jpeg(gradient()))
    parts = [] if change in ("inline pixels", "no such part", "a URI that is a list") else [part]
    answer = send(store, [broken(change), good], *parts)
    assert answer.status_code == 409, answer.text
    assert len(failures(answer)) == 1, answer.text
    assert len(store.found("instances")) == 1


@pytest.mark.parametrize(
    "first", [b"not json", b'{"no": "array"}', b"[1]", b'[{"00080018": 5}]', b"\xff\xfe"]
)
def test_3_1_a_first_part_that_is_not_an_array_of_data_sets_is_400(
    store: Client, first: bytes
) -> None:
    assert (
        store.post(
            multipart([({"Content-Type": "application/dicom+json"}, first)]), KIND
        ).status_code
        == 400
    )


def test_3_1_json_nested_without_end_is_400(store: Client) -> None:
    first = b"[" * 100_000
    assert (
        store.post(
            multipart([({"Content-Type": "application/dicom+json"}, first)]), KIND
        ).status_code
        == 400
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/json; transfer-syntax=" + ELE, ""])
def test_3_1_the_first_part_says_that_it_is_dicom_json(store: Client, kind: str) -> None:
    assert send(store, [metadata()], kind=kind).status_code == 400


def test_3_1_inline_binary_needs_a_transfer_syntax_in_the_first_part(store: Client) -> None:
    data = metadata(ELE)
    del data["7FE00010"]
    data["00400275"] = {"vr": "SQ", "Value": [{"00091001": {"vr": "OB", "InlineBinary": "AAE="}}]}
    assert send(store, [data], kind="application/dicom+json").status_code == 400
    assert send(store, [data]).status_code == 200


@pytest.mark.parametrize("location", ["other", "JPEG-IMAGE", ""])
def test_3_1_a_part_that_no_data_set_names_is_400_and_nothing_is_stored(
    store: Client, location: str
) -> None:
    kind = f"image/jpeg; transfer-syntax={JPEG}50"
    answer = send(
        store,
        [metadata()],
        ("jpeg-image", kind, jpeg(gradient())),
        (location, kind, b"would be lost"),
    )
    assert answer.status_code == 400
    assert store.found("instances") == []


def test_3_4_the_same_json_and_image_again_are_200_and_another_image_409(store: Client) -> None:
    kind = f"image/jpeg; transfer-syntax={JPEG}50"
    for _ in range(2):
        assert send(store, [metadata()], ("jpeg-image", kind, jpeg(gradient()))).status_code == 200
    assert (
        send(store, [metadata()], ("jpeg-image", kind, jpeg(gradient()[::-1]))).status_code == 409
    )


def sof(data: bytes, marker: int) -> bytes:
    """A JPEG with another frame header: only its kind is checked."""
    at = data.index(b"\xff\xc0")
    return data[: at + 1] + bytes([marker]) + data[at + 2 :]


def progressive(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", progressive=True)
    return file.getvalue()


def lossless(predictor: int) -> bytes:
    """The header of a lossless JPEG of one component, and the start of its scan."""
    data = sof(jpeg(gradient()), 0xC3)
    at = data.index(b"\xff\xda")
    scan = data[at : at + 7] + bytes([predictor, 0, 0])
    return data[:at] + scan + data[at + 10 :]


@pytest.mark.parametrize(
    ("declared", "data", "syntax"),
    [
        ("50", jpeg(gradient()), "50"),
        ("51", jpeg(gradient()), "51"),
        ("50", progressive(gradient()), "55"),
        ("50", lossless(1), "70"),
        ("70", lossless(1), "70"),
        ("57", lossless(1), "57"),
        ("70", lossless(4), "57"),
        ("70", jpeg(gradient()), "50"),
    ],
)
def test_17_a_jpeg_part_gets_the_transfer_syntax_that_it_is(
    store: Client, declared: str, data: bytes, syntax: str
) -> None:
    kind = f"image/jpeg; transfer-syntax={JPEG}{declared}"
    answer = send(store, [metadata(JPEG + declared)], ("jpeg-image", kind, data))
    assert answer.status_code == 200, answer.text
    assert fetched(store).file_meta.TransferSyntaxUID == JPEG + syntax
    ((got, body),) = parts_of(store.get(f"{PATH}/frames/1", OCTETS))
    assert body.startswith(data)
    if syntax != "55":  # the API has no word for frames of it
        assert got == f"image/jpeg; transfer-syntax={JPEG}{syntax}"


@pytest.mark.parametrize("value", ["{}", "1"])
def test_a_json_part_of_too_many_attributes_or_values_is_400(store: Client, value: str) -> None:
    """What pydicom makes of ten megabytes of `{},` takes gigabytes."""
    many = f'[{{"0040A730":{{"vr":"SQ","Value":[{",".join([value] * 1_100_000)}]}}}}]'
    answer = store.post(multipart([({"Content-Type": TYPE}, many.encode())]), KIND)
    assert answer.status_code == 400
    assert "too many" in answer.json()[0]["error"]["message"]
