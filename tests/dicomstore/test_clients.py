"""Independent clients, unmodified: dicomweb-client, dicomtrolley, curl as in the how-to, and how
dcmweb reads."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicomtrolley.core import QueryLevels
from dicomtrolley.qido_rs import HierarchicalQuery, QidoRS
from dicomtrolley.trolley import Trolley
from dicomtrolley.wado_rs import WadoRS
from dicomweb_client.api import DICOMwebClient
from PIL import Image

from tests.dicomstore.kit import BUNDLED, ONE, SC, Client, dicom, gradient, image, part10


@pytest.fixture
def ct(store: Client) -> pydicom.Dataset:
    """A CT that is in the store."""
    store.stored((BUNDLED / "CT_small.dcm").read_bytes())
    return pydicom.dcmread(BUNDLED / "CT_small.dcm")


@pytest.fixture
def uids(ct: pydicom.Dataset) -> tuple[str, str, str]:
    """The study, the series and the instance of the CT."""
    return ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID


def test_dicomweb_client_stores_and_deletes(store: Client) -> None:
    client = DICOMwebClient(store.web)
    ds = pydicom.dcmread(BUNDLED / "CT_small.dcm")
    answer = client.store_instances([ds])
    stored = answer.ReferencedSOPSequence[0]
    assert stored.ReferencedSOPInstanceUID == ds.SOPInstanceUID
    client.delete_instance(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    assert client.search_for_instances() == []


def test_dicomweb_client_searches(
    store: Client, ct: pydicom.Dataset, uids: tuple[str, str, str]
) -> None:
    client = DICOMwebClient(store.web)
    (study,) = client.search_for_studies(search_filters={"PatientID": ct.PatientID})
    assert study["0020000D"]["Value"] == [uids[0]]
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert len(client.search_for_series(uids[0])) == 1
    assert len(client.search_for_instances(*uids[:2])) == 1


def test_dicomweb_client_retrieves_data_sets(
    store: Client, ct: pydicom.Dataset, uids: tuple[str, str, str]
) -> None:
    client = DICOMwebClient(store.web)
    assert client.retrieve_study(uids[0])[0].PixelData == ct.PixelData
    assert client.retrieve_series(*uids[:2])[0].PixelData == ct.PixelData
    assert client.retrieve_instance(*uids).PixelData == ct.PixelData


def test_dicomweb_client_retrieves_frames_metadata_bulk_data_and_pictures(
    store: Client, ct: pydicom.Dataset, uids: tuple[str, str, str]
) -> None:
    client = DICOMwebClient(store.web)
    (frame,) = client.retrieve_instance_frames(*uids, [1])
    assert frame == ct.PixelData[: ct.Rows * ct.Columns * 2]
    metadata = client.retrieve_instance_metadata(*uids)
    read = pydicom.Dataset.from_json(metadata, bulk_data_uri_handler=lambda uri: b"")
    assert read.Rows == ct.Rows
    (bulk,) = client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])
    assert bulk == ct.PixelData
    png = client.retrieve_instance_rendered(*uids, media_types=("image/png",))
    assert Image.open(io.BytesIO(png)).size == (ct.Columns, ct.Rows)


def test_dicomtrolley_finds_and_downloads(
    store: Client, ct: pydicom.Dataset, tmp_path: Path
) -> None:
    session = requests.Session()
    trolley = Trolley(searcher=QidoRS(session, store.web), downloader=WadoRS(session, store.web))
    query = HierarchicalQuery(
        query_level=QueryLevels.SERIES,
        StudyInstanceUID=str(ct.StudyInstanceUID),
        include_fields=["StudyInstanceUID", "PatientID"],
    )
    studies = trolley.find_studies(query)
    assert [study.uid for study in studies] == [ct.StudyInstanceUID]
    trolley.download(studies, tmp_path / "out")
    (file,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert np.array_equal(pydicom.dcmread(file).pixel_array, ct.pixel_array)
    assert (
        trolley.find_studies(HierarchicalQuery(query_level=QueryLevels.STUDY, PatientID="nobody"))
        == []
    )


def test_dcmweb_reads_multipart_the_way_it_does(store: Client) -> None:
    """Google's CLI: the boundary up to the next `;` in the lower-cased header; chunks with it are
    dropped."""
    store.stored(part10(image(np.stack([gradient()] * 2))))
    accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    answer = store.http.get(
        f"{store.web}/{ONE}/frames/1,2", headers={"Accept": accept}, stream=True
    )
    kind = answer.headers["Content-Type"].lower()
    start = kind.find("boundary=") + 9
    boundary = kind[start : kind.find(";", start)].encode()
    files: list[bytes] = []
    for chunk in answer.iter_content(8192):
        if boundary in chunk:
            files += [b""] if b"Content-Type" in chunk else []
        else:
            files[-1] += chunk
    assert files == [gradient().tobytes()] * 2


def test_dcmweb_deletes_and_polls_the_operation_at_the_first_path_segment(store: Client) -> None:
    assert store.get("studies", limit=1).status_code in (200, 204), (
        "what it asks before every command"
    )
    store.stored(dicom())
    name = store.delete("studies/1.2").json()["name"]
    version = store.web.removeprefix(store.url + "/").partition("/")[0]
    assert requests.get(f"{store.url}/{version}/{name}", timeout=30).json()["done"] is True


def test_dcmweb_needs_exactly_200_and_xml_for_any_accept(store: Client) -> None:
    answer = requests.post(
        f"{store.web}/studies", dicom(), headers={"Content-Type": "application/dicom"}, timeout=30
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom+xml"
    assert "Content-Type" in store.get("studies/9").headers


@pytest.fixture
def curl(store: Client, tmp_path: Path) -> "Curl":
    """The how-to's curl, on the local host."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    return Curl(store, tmp_path)


class Curl:
    """Runs `curl` in a directory, with the how-to's arguments."""

    def __init__(self, store: Client, directory: Path) -> None:
        self.store = store
        self.directory = directory

    def __call__(self, *arguments: str) -> bytes:
        command = ["curl", "-sS", "--fail-with-body", *arguments]
        return subprocess.run(command, cwd=self.directory, check=True, capture_output=True).stdout


def test_how_to_store_search_and_retrieve(curl: Curl) -> None:
    base = curl.store.web
    auth = ("-H", "Authorization: Bearer token")
    file = part10(image(gradient(), PatientName="Sally Zhang"))
    (curl.directory / "file.dcm").write_bytes(file)
    stored = curl(
        "-X",
        "POST",
        *auth,
        "-H",
        "Content-Type: application/dicom",
        "--data-binary",
        "@file.dcm",
        f"{base}/studies",
    )
    assert stored.startswith(b"<NativeDicomModel>")
    cold = curl.store.http.delete(f"{base}/{ONE}")
    assert cold.status_code == 200
    beta = base.replace("/v1/", "/v1beta1/")
    curl(
        "-X",
        "POST",
        *auth,
        "-H",
        "Content-Type: application/dicom",
        "-H",
        "Storage-Class: COLDLINE",
        "--data-binary",
        "@file.dcm",
        f"{beta}/studies",
    )
    assert len(json.loads(curl("-X", "GET", *auth, f"{base}/instances"))) == 1
    assert (
        len(json.loads(curl("-X", "GET", *auth, f"{base}/studies?PatientName=Sally%20Zhang"))) == 1
    )
    multipart = "Accept: multipart/related; type=application/dicom; transfer-syntax=*"
    curl("-X", "GET", *auth, "-H", multipart, f"{base}/studies/1.2", "--output", "study.multipart")
    assert file in (curl.directory / "study.multipart").read_bytes()
    curl(
        "-X",
        "GET",
        *auth,
        "-H",
        "Accept: application/dicom; transfer-syntax=*",
        f"{base}/{ONE}",
        "--output",
        "one.dcm",
    )
    assert (curl.directory / "one.dcm").read_bytes() == file
    curl(
        "-X",
        "GET",
        *auth,
        "-H",
        "Accept: image/png",
        f"{base}/{ONE}/rendered",
        "--output",
        "one.png",
    )
    assert Image.open(curl.directory / "one.png").size == (24, 16)
    assert "00020010" in json.loads(curl("-X", "GET", *auth, f"{base}/{ONE}/metadata"))[0]
    octets = "Accept: application/octet-stream; transfer-syntax=*"
    curl("-X", "GET", *auth, "-H", octets, f"{beta}/{ONE}/bulkdata/7FE00010", "--output", "one.dat")
    assert (curl.directory / "one.dat").read_bytes() == gradient().tobytes()
    name = json.loads(curl("-X", "DELETE", *auth, f"{base}/studies/1.2"))["name"]
    assert json.loads(curl("-X", "GET", *auth, f"{curl.store.root}/{name}"))["done"] is True


def test_how_to_json_and_jpeg(curl: Curl) -> None:
    """The template and the three boundary files, as the page has them."""
    template = {
        "00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.4.50"]},
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080016": {"vr": "UI", "Value": [SC]},
        "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
        "00280002": {"vr": "US", "Value": [3]},
        "00280004": {"vr": "CS", "Value": ["YBR_FULL_422"]},
        "00280006": {"vr": "US", "Value": [0]},
        "00280008": {"vr": "IS", "Value": [1]},
        "00280010": {"vr": "US", "Value": [64]},
        "00280011": {"vr": "US", "Value": [64]},
        "00280100": {"vr": "US", "Value": [8]},
        "00280101": {"vr": "US", "Value": [8]},
        "00280102": {"vr": "US", "Value": [7]},
        "00280103": {"vr": "US", "Value": [0]},
        "7FE00010": {"vr": "OB", "BulkDataURI": "jpeg-image"},
    }
    red = gradient(64, 64)
    colours = np.stack([red, red[::-1], red.T], axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(colours))
    picture.save(curl.directory / "image.jpg", quality=95)
    (curl.directory / "instance.json").write_text(json.dumps([template]))
    script = r"""
echo -ne "--DICOMwebBoundary\r\nContent-Type: application/dicom+json\r\n\r\n" > opening.file
echo -ne "\r\n--DICOMwebBoundary\r\nContent-Location: jpeg-image\r\n" > middle.file
echo -ne "Content-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50\r\n\r\n" >> middle.file
echo -ne "\r\n--DICOMwebBoundary--" > closing.file
cat opening.file instance.json middle.file image.jpg closing.file > multipart-request.file"""
    subprocess.run(["bash", "-c", script], cwd=curl.directory, check=True)
    media_type = 'multipart/related; type="application/dicom+json"; boundary=DICOMwebBoundary'
    kind = ("-H", f"Content-Type: {media_type}")
    auth = ("-H", "Authorization: Bearer token")
    body = ("--data-binary", "@multipart-request.file")
    answer = curl("-X", "POST", *kind, *auth, f"{curl.store.web}/studies", *body)
    assert b"ReferencedSOPSequence" in answer
    assert b"FailedSOPSequence" not in answer
    png = curl("-H", "Accept: image/png", f"{curl.store.web}/{ONE}/rendered")
    sent = np.asarray(Image.open(curl.directory / "image.jpg")).astype(int)
    rendered = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    # Decoders of a lossy JPEG may differ a little.
    assert np.abs(rendered - sent).mean() < 4
