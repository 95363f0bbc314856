"""`make viewer`: the OHIF viewer on this machine, looking at the running stack through its search
function.

OHIF is fetched once, prebuilt, from the npm registry, and checked. It is served together with the
search function's own paths under one origin, so the browser needs no CORS and the viewer no
configuration. URLs in the search function's JSON answers are made to lead back here.
"""

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import mimetypes
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from infra.local.callers import Callers

DATA: Final = Path(__file__).parents[2] / ".local"
PACKAGE: Final = "@ohif/app"
VERSION: Final = "3.13.2"
SHA512: Final = (
    "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
)
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


class ViewerError(Exception):
    """The viewer cannot start; one line for a person."""


def installed(folder: Path) -> Path:
    """The folder with OHIF's files, fetched when they are not there yet.

    Raises:
        ViewerError: npm is missing, or what it fetched is not what it should be.
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
        raise ViewerError(
            "npm is needed, to fetch the viewer once: install Node.js (Debian: apt-get install npm)"
        )
    print(f"Fetching {PACKAGE} {VERSION} (48 MiB, once)", flush=True)
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_FETCH_S, cwd=scratch, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ViewerError(f"npm did not fetch the viewer within {_FETCH_S} s") from error
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise ViewerError(f"npm could not fetch {PACKAGE}: {last[0]}")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    with archive.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != SHA512:
        raise ViewerError(
            f"the archive of {PACKAGE} {VERSION} is not the one that this version was tested with"
        )
    with tarfile.open(archive) as tar:
        if hasattr(
            tarfile, "data_filter"
        ):  # Debian 12's Python has none; the digest vouches for the archive
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)  # noqa: S202


def running_search(data: Path) -> str:
    """The URL of the running stack's search function.

    Raises:
        ViewerError: no stack runs there.
    """
    try:
        return str(
            json.loads((data / "stack.json").read_text())["endpoints"]["functions"]["search"]
        )
    except (OSError, ValueError, KeyError) as error:
        raise ViewerError(
            "no stack is running here: start it with `make run`, or name a --search URL"
        ) from error


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
        kind = "application/wasm" if file.suffix == ".wasm" else mimetypes.guess_type(file.name)[0]
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
        self.send_response(response.status)
        for name, value in _end_to_end(response.getheaders()).items():
            if name.lower() != "content-length":
                self.send_header(name, value.replace(upstream, own))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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


def main() -> int:
    """Fetch if need be, serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.viewer", description="OHIF, looking at the stack here."
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="the running stack's folder (%(default)s)"
    )
    parser.add_argument("--search", help="URL of the search function; default: the running stack's")
    parser.add_argument("--port", type=int, default=8099, help="0 takes a free one (%(default)s)")
    options = parser.parse_args()
    try:
        search = options.search or running_search(options.data)
        viewer = Viewer(installed(DATA / "viewer"), search, options.port)
    except (ViewerError, OSError) as error:
        print(f"viewer: {error}", file=sys.stderr)
        return 1
    print(f"The viewer is at {viewer.url}  (Ctrl-C stops it; it asks {search})", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        viewer.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
