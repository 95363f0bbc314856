"""`viewer`: the OHIF viewer on this machine; it reads the DICOM store through the search function.

OHIF is downloaded once, prebuilt, from the npm registry, and its checksum is verified. It has the
same origin as the search function's paths, which this server passes on: so the browser needs no
CORS and the viewer no configuration. In the search function's JSON answers, URLs are changed to
this server's, and the list of studies gets modalities and counts.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import mimetypes
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import click

from cli import study_counts
from cli.errors import CliError, NoSystemError
from cli.numbers import Whole
from cli.output import say
from cli.system import LOCAL_FILE, System
from infra.local.callers import Callers

PACKAGE: Final = "@ohif/app"
VERSION: Final = "3.13.2"
SHA512: Final = (
    "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
)
_FOLDER: Final = LOCAL_FILE.parent / "viewer"
_FETCH_S: Final = 300
_UPSTREAM_S: Final = 120
_CHUNK_BYTES: Final = 256 * 1024
_PROXIED: Final = ("/studies", "/series", "/instances")
# How the search function's URLs begin, whatever it is called where it runs.
_BULK_DATA: Final = re.compile(rb'("BulkDataURI"\s*:\s*")https?://[^/"]+(?=/studies/)')
_LINK: Final = re.compile(r"(?<=<)https?://[^/>]+")
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "server", "date", "upgrade", "te"}
)

# The store matches whole values, has fuzzy matching of names, and no thumbnails.
CONFIG: Final = """window.config = {
  name: 'dicom-functions',
  routerBasename: null,
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' },
  maxNumRequests: { interaction: 20, thumbnail: 5, prefetch: 10 },
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'DICOM Functions',
        name: 'dicomweb',
        qidoRoot: window.location.origin,
        wadoRoot: window.location.origin,
        wadoUriRoot: window.location.origin,
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true },
        singlepart: 'bulkdata,video,pdf',
      },
    },
  ],
};
"""


def installed(folder: Path) -> Path:
    """The folder with OHIF's files; they are downloaded the first time.

    Raises:
        CliError: npm is missing, or the download failed or has another checksum.
    """
    dist = folder / f"ohif-{VERSION}"
    if not dist.exists():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            scratch = Path(name)
            archive = _fetched(scratch)
            _unpack(archive, scratch)
            (scratch / "package" / "dist").rename(dist)
    (dist / "app-config.js").write_text(CONFIG)
    return dist


def _fetched(scratch: Path) -> Path:
    npm = shutil.which("npm")
    if not npm:
        raise CliError(
            "npm is needed to download the viewer: install Node.js (Debian: apt-get install npm)"
        )
    say(f"Downloading {PACKAGE} {VERSION} (48 MiB, once)")
    package = f"{PACKAGE}@{VERSION}"
    command = [npm, "pack", package, "--silent", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_FETCH_S,
            cwd=scratch,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CliError(f"npm did not download the viewer within {_FETCH_S} s") from error
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        message = _last_line(done.stderr or done.stdout)
        raise CliError(f"npm could not download {PACKAGE}: {message}")
    return archives[0]


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    if not lines:
        return "no message"
    return lines[-1]


def _unpack(archive: Path, folder: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if base64.b64encode(digest).decode() != SHA512:
        raise CliError(
            f"the checksum of {PACKAGE} {VERSION} is wrong: it is not the tested archive"
        )
    with tarfile.open(archive) as tar:
        # Debian 12's Python has no filter; the checksum is enough.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)  # noqa: S202


class Viewer(ThreadingHTTPServer):
    """Serves OHIF's files, and passes its DICOMweb requests on to the search function.

    Args:
        dist: OHIF's files.
        search: URL of the search function.
        port: to listen on; 0: any free port.
    """

    daemon_threads = True

    def __init__(self, dist: Path, search: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.dist = dist.resolve()
        self.upstream = urllib.parse.urlsplit(search).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = _CHUNK_BYTES
    server: Viewer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        reason = Callers().refusal(
            self.headers.get("Host", ""),
            self.headers.get("Origin", ""),
        )
        with contextlib.suppress(ConnectionError):  # browsers drop requests they no longer need
            if reason:
                self.send_error(403, reason)
            elif any(path == name or path.startswith(name + "/") for name in _PROXIED):
                self._pass_on()
            else:
                self._file(path)

    def _file(self, path: str) -> None:
        file = (self.server.dist / urllib.parse.unquote(path).lstrip("/")).resolve()
        if not file.is_file() or not file.is_relative_to(self.server.dist):
            if Path(path).suffix:
                self.send_error(404)
                return
            file = self.server.dist / "index.html"  # a view of the application
        kind, _ = mimetypes.guess_type(file.name)
        if file.suffix == ".wasm":
            kind = "application/wasm"
        self.send_response(200)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        with file.open("rb") as content:
            shutil.copyfileobj(content, self.wfile)

    def _pass_on(self) -> None:
        """Answer with the search function's answer to this request."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=_UPSTREAM_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", self.path, headers=_end_to_end(self.headers.items()))
                response = connection.getresponse()
            except (OSError, http.client.HTTPException):
                self.send_error(502, "The search function does not answer")
                return
            if "json" in response.headers.get("Content-Type", ""):
                self._rewritten(response)
            else:
                self._streamed(response)

    def _rewritten(self, response: http.client.HTTPResponse) -> None:
        """Send a JSON answer, with the search function's URLs replaced by this server's."""
        host = self.headers.get("Host") or urllib.parse.urlsplit(self.server.url).netloc
        own = f"http://{host}"
        body = _BULK_DATA.sub(rb"\1" + own.encode(), response.read())
        if response.status == 200 and self.path.partition("?")[0] == "/studies":
            studies = json.loads(body)
            study_counts.fill(studies, self._rows)
            body = json.dumps(studies).encode()
        self.send_response(response.status)
        for name, value in _end_to_end(response.getheaders()).items():
            if name.lower() != "content-length":
                self.send_header(name, _LINK.sub(own, value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _rows(self, target: str) -> list[dict[str, Any]]:
        """The rows of a search; none if it failed: the list of studies is useful without them."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=_UPSTREAM_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", target, headers={"Accept": "application/dicom+json"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                return []
        if response.status != 200:
            return []
        rows: list[dict[str, Any]] = json.loads(body)
        return rows

    def _streamed(self, response: http.client.HTTPResponse) -> None:
        self.send_response(response.status)
        for name, value in _end_to_end(response.getheaders()).items():
            self.send_header(name, value)
        if response.length is None:
            self.send_header("Connection", "close")
        self.end_headers()
        while chunk := response.read(_CHUNK_BYTES):
            self.wfile.write(chunk)

    def log_message(self, *_: object) -> None:
        """Log nothing: URLs may contain names."""


def _end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The end-to-end headers, without the hop-by-hop ones."""
    return {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}


@click.command()
@click.option(
    "--system",
    type=click.Path(path_type=Path),
    envvar="DICOM_FUNCTIONS_SYSTEM",
    metavar="FILE|FOLDER",
    help="The file or folder of a local system. Without it: the one that runs on this machine.",
)
@click.option("--search", metavar="URL", help="Use the search function at this URL instead.")
@click.option(
    "--port",
    type=Whole(0, 65535),
    default=8099,
    show_default=True,
    metavar="N",
    help="The port to listen on; 0 is any free port.",
)
def viewer(system: Path | None, search: str | None, port: int) -> int:
    """Start the OHIF viewer for the stored studies, until Ctrl-C.

    Open the URL that it prints in a browser.
    """
    url = search or _local_search(system)
    try:
        server = Viewer(installed(_FOLDER), url, port)
    except OSError as error:
        raise CliError(f"the viewer cannot start: {error.strerror}; try --port 0") from error
    say(f"The viewer is at {server.url}  (Ctrl-C stops it; it reads from {url})")
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def _local_search(file: Path | None) -> str:
    system = System.find(file)
    if not system.local or not system.search_url:
        raise NoSystemError("the viewer needs a system that runs on this machine, or --search URL")
    return system.search_url
