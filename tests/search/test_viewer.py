"""`make viewer`: OHIF, as npm has it, draws an image that comes through the search function."""

import base64
import hashlib
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cli import viewer
from cli.errors import CliError, NoSystemError
from tests.search.browser import browser, needs_chromium
from tests.search.kit import Function, function, real_store, study

# The number of different shades of each canvas.
SHADES = """() => [...document.querySelectorAll('canvas')].map(canvas => {
  const copy = document.createElement('canvas');
  [copy.width, copy.height] = [canvas.width, canvas.height];
  if (!canvas.width || !canvas.height) return 0;
  const context = copy.getContext('2d');
  context.drawImage(canvas, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const shades = new Set();
  for (let at = 0; at < data.length; at += 4) shades.add(data[at]);
  return shades.size;
})"""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    folder = tmp_path_factory.mktemp("viewer")
    with real_store(folder / "store", study(1)) as endpoint, function(endpoint, folder) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<title>OHIF</title>")
    (tmp_path / "app-config.js").write_text(viewer.CONFIG)
    (tmp_path / "x.wasm").write_bytes(b"\0asm")
    return tmp_path


def served(files: Path, search: str) -> viewer.Viewer:
    server = viewer.Viewer(files, search)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_files_and_dicomweb_come_from_one_origin(full: Function, files: Path) -> None:
    server = served(files, full.url)

    def get(target: str) -> requests.Response:
        return requests.get(f"{server.url}{target}", timeout=10)

    try:
        assert "OHIF" in get("/viewer?StudyInstanceUIDs=1.2").text
        assert get("/x.wasm").headers["Content-Type"] == "application/wasm"
        assert get("/missing.js").status_code == 404
        assert get("/..%2F..%2Fetc/passwd.txt").status_code == 404
        metadata = get("/studies/1.2.1/metadata").json()
        assert metadata[0]["7FE00010"]["BulkDataURI"].startswith(server.url)
        assert get("/studies?Nonsense=1").status_code == 400
    finally:
        server.shutdown()
        server.server_close()


def test_urls_are_the_viewers_whatever_the_search_function_is_called_where_it_runs(
    full: Function, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As through `gcloud run services proxy`."""
    folder = tmp_path_factory.mktemp("deployed")
    name = "https://dicom-search-abc.a.run.app"
    with (
        real_store(folder / "store", study(1)) as endpoint,
        function(endpoint, folder, SEARCH_PUBLIC_URL=name) as deployed,
    ):
        server = served(files, deployed.url)
        try:
            metadata = requests.get(f"{server.url}/studies/1.2.1/metadata", timeout=10).json()
            url = metadata[0]["7FE00010"]["BulkDataURI"]
            link = requests.get(f"{server.url}/series?limit=1", timeout=10).headers["Link"]
        finally:
            server.shutdown()
            server.server_close()
    assert url.startswith(f"{server.url}/studies/1.2.1/")
    assert link.startswith(f"<{server.url}/series?")


def test_the_list_of_studies_has_modalities_and_counts(full: Function, files: Path) -> None:
    server = served(files, full.url)
    try:
        (study_row,) = requests.get(f"{server.url}/studies?limit=101", timeout=30).json()
    finally:
        server.shutdown()
        server.server_close()
    assert study_row["00080061"]["Value"] == ["CT"]
    assert study_row["00201206"]["Value"] == [2]
    assert study_row["00201208"]["Value"] == [6]


def test_without_npm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CliError, match="apt-get install npm"):
        viewer.installed(tmp_path / "viewer")
    with pytest.raises(NoSystemError, match="has no system"):
        viewer._local_search(tmp_path)


def test_another_archive_than_the_tested_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho x > ohif-app.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CliError, match="not the tested archive"):
        viewer.installed(tmp_path / "viewer")


@pytest.mark.parametrize("python", ["this one", "Debian 12's"])
def test_the_archive_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    def before_filters(
        self: tarfile.TarFile, path: Path, members: None = None, *, numeric_owner: bool = False
    ) -> None:
        extract(self, path, members, numeric_owner=numeric_owner)

    extract = tarfile.TarFile.extractall
    if python == "Debian 12's":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        monkeypatch.setattr(tarfile.TarFile, "extractall", before_filters)
    (tmp_path / "index.html").write_text("<title>OHIF</title>")
    with tarfile.open(tmp_path / "app.tgz", "w:gz") as archive:
        archive.add(tmp_path / "index.html", "package/dist/index.html")
    digest = hashlib.sha512((tmp_path / "app.tgz").read_bytes()).digest()
    monkeypatch.setattr(viewer, "SHA512", base64.b64encode(digest).decode())
    viewer._unpack(tmp_path / "app.tgz", tmp_path)
    assert (tmp_path / "package" / "dist" / "index.html").read_text() == "<title>OHIF</title>"


@needs_chromium
@pytest.mark.skipif(
    not shutil.which("npm"), reason="npm is not installed (Debian: apt-get install npm)"
)
def test_ohif_draws_an_image(full: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        viewer, "_FETCH_S", 240
    )  # with the waits below, less than the test may take
    try:
        dist = viewer.installed(viewer._FOLDER)
    except CliError as error:
        pytest.skip(f"OHIF cannot be fetched here: {error}")
    server = served(dist, full.url)
    try:
        with browser() as chromium:
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{server.url}/viewer?StudyInstanceUIDs=1.2.1", timeout=90_000)
            page.wait_for_function(
                f"Math.max(0, ...({SHADES})()) > 16", timeout=90_000, polling=500
            )
    finally:
        server.shutdown()
        server.server_close()
