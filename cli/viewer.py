"""`viewer`: the OHIF viewer on this machine, looking at the DICOM store through the search
function.

OHIF is fetched once, prebuilt, from the npm registry, and checked. It is served together with the
search function's own paths under one origin, so the browser needs no CORS and the viewer no
configuration. URLs in the search function's JSON answers are made to lead back here, and the list
of studies is filled with modalities and counts.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import mimetypes
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
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "server", "date", "upgrade", "te"}
)

# The store matches whole values and knows fuzzy matching of names; it has no thumbnails of its own.
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
    """The folder with OHIF's files, fetched when they are not there yet.

    Raises:
        CliError: npm is missing, or what it fetched is not what it should be.
    """
    dist = folder / f"ohif-{VERSION}"
    if not dist.exists():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _unpack(_fetched(Path(scratch)), Path(scratch))
            (Path(scratch) / "package" / "dist").rename(dist)
    (dist / "app-config.js").write_text(CONFIG)
    return dist


def _fetched(scratch: Path) -> Path:
    npm = shutil.which("npm")
    if not npm:
        raise CliError(
            "npm is needed, to fetch the viewer once: install Node.js (Debian: apt-get install npm)"
        )
    say(f"Fetching {PACKAGE} {VERSION} (48 MiB, once)")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_FETCH_S, cwd=scratch, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CliError(f"npm did not fetch the viewer within {_FETCH_S} s") from error
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise CliError(f"npm could not fetch {PACKAGE}: {last[0]}")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    with archive.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != SHA512:
        raise CliError(
            f"the archive of {PACKAGE} {VERSION} is not the one that this version was tested with"
        )
    with tarfile.open(archive) as tar:
        # Debian 12's Python has no filter; the digest vouches for the archive.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)  # noqa: S202


class Viewer(ThreadingHTTPServer):
    """Serves OHIF's files, and passes its DICOMweb requests on.

    Args:
        dist: OHIF's files.
        search: URL of the search function.
        port: 0 takes a free one.
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
        """The search function's answer to this request."""
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
        """A JSON answer, whose URLs of the search function become this server's."""
        upstream = f"http://{self.server.upstream}/"
        host = self.headers.get("Host") or urllib.parse.urlsplit(self.server.url).netloc
        own = f"http://{host}/"
        body = response.read().replace(upstream.encode(), own.encode())
        if response.status == 200 and self.path.partition("?")[0] == "/studies":
            studies = json.loads(body)
            study_counts.fill(studies, self._rows)
            body = json.dumps(studies).encode()
        self.send_response(response.status)
        for name, value in _end_to_end(response.getheaders()).items():
            if name.lower() != "content-length":
                self.send_header(name, value.replace(upstream, own))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _rows(self, target: str) -> list[dict[str, Any]]:
        """The rows of a search; none where it failed: the list of studies is of use without."""
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
        """Nothing: URLs may hold names."""


def _end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that are meant for the other end, not for the next hop."""
    return {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}


@click.command()
@click.option(
    "--system",
    type=click.Path(path_type=Path),
    envvar="DICOM_FUNCTIONS_SYSTEM",
    metavar="FILE|FOLDER",
    help="A system that runs on this machine; without it: the one that is there.",
)
@click.option("--search", metavar="URL", help="URL of a search function instead.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8099,
    show_default=True,
    help="0 takes a free one.",
)
def viewer(system: Path | None, search: str | None, port: int) -> int:
    """Open the OHIF viewer on what is stored, until Ctrl-C."""
    url = search or _local_search(system)
    try:
        server = Viewer(installed(_FOLDER), url, port)
    except OSError as error:
        raise CliError(f"the viewer cannot start: {error.strerror}; try --port 0") from error
    say(f"The viewer is at {server.url}  (Ctrl-C stops it; it asks {url})")
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def _local_search(file: Path | None) -> str:
    system = System.find(file)
    if not system.local or not system.search_url:
        raise NoSystemError("the viewer needs a system that runs here, or --search URL")
    return system.search_url
