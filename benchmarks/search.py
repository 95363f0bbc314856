"""The search function compared with nginx as a plain proxy, and with a function that answers a
constant.

    python -m benchmarks.search [--rounds 7] [--seconds 3] [--python INTERPRETER] [--json FILE]

The store is nginx with one small answer as a file, so that the store's own time is very short.
Rounds run the peers one after the other; ratios are of medians in one run. `--python` is the
interpreter of an environment with only requirements.txt, as deployed. Needs nginx (Debian: apt-get
install nginx).
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.search.kit import PREFIX, Answer, fake_store, function, row
from tests.search.test_memory import ROWS, large, peak_mib, read

ROOT = Path(__file__).parents[1]
CONNECTIONS = 16
MIB = 1024 * 1024
ANSWER = json.dumps(
    [row(t0020000D="1.2.3", t00100020="P1", t00080020="20240101", t00100010="Doe^Jane")]
).encode()
TARGETS = {"added ms": 0.8, "rate": 0.45, "cold start": 1.3, "memory MiB": 16.0}
BARE = """
import functions_framework

@functions_framework.http
def bare(request):
    return ANSWER, 200, {"Content-Type": "application/dicom+json"}

ANSWER = %r
"""
NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 10000000; types {{}} default_type application/dicom+json;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream store {{ server 127.0.0.1:{store}; keepalive 32; }}
  server {{ listen 127.0.0.1:{store}; root {folder}/www; }}
  server {{
    listen 127.0.0.1:{proxy};
    location / {{
      proxy_pass http://store{prefix}; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[tuple[int, int]]:
    """nginx as the store and as a proxy before it: their ports."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        sys.exit("nginx is not installed (Debian: apt-get install nginx)")
    with free_port() as store, free_port() as proxy:
        answers = folder / "www" / PREFIX.strip("/")
        answers.mkdir(parents=True)
        (answers / "studies").write_bytes(ANSWER)
        folder.chmod(0o755)
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, store=store, proxy=proxy, prefix=PREFIX))
        process = subprocess.Popen([program, "-e", str(folder / "error.log"), "-c", str(config)])
        try:
            _until_open(proxy)
            yield store, proxy
        finally:
            process.terminate()
            process.wait(timeout=10)


@contextlib.contextmanager
def bare(folder: Path, port: int, python: str) -> Iterator[None]:
    """A functions-framework function that answers a constant."""
    source = folder / "bare.py"
    source.write_text(BARE % ANSWER)
    command = [
        python,
        "-m",
        "functions_framework",
        "--target",
        "bare",
        "--source",
        str(source),
    ]
    environment = {"PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], env=environment
    )
    try:
        _until_open(port)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def _until_open(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.002)
    raise AssertionError("a server did not start")


def latencies_ms(port: int, target: str, seconds: float) -> list[float]:
    """One kept connection, one request after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
        times.append((time.perf_counter() - start) * 1000)
        assert response.status == 200, body
    connection.close()
    return times[len(times) // 20 :]


def requests_per_second(port: int, target: str, seconds: float) -> float:
    """CONNECTIONS kept connections, each with one request at a time, from one thread without a
    library."""
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ, bytearray())
        connection.sendall(request)
    done = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for key, _ in selector.select(1):
            assert isinstance(key.fileobj, socket.socket)
            connection = key.fileobj
            key.data.extend(connection.recv(65536))
            if key.data.endswith(ANSWER):
                assert key.data.startswith(b"HTTP/1.1 200")
                key.data.clear()
                done += 1
                connection.sendall(request)
    rate = done / (time.perf_counter() - start)
    for kept in list(selector.get_map().values()):
        assert isinstance(kept.fileobj, socket.socket)
        kept.fileobj.close()
    return rate


def speed(folder: Path, python: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Latency and rate of each peer, medians of the rounds."""
    with (
        nginx(folder) as (store, proxy),
        function(f"http://127.0.0.1:{store}", folder, python) as search,
        free_port() as constant,
        bare(folder, constant, python),
    ):
        ways = {
            "direct": (store, f"{PREFIX}studies?limit=1"),
            "nginx": (proxy, "/studies?limit=1"),
            "search": (search.port, "/studies?limit=1"),
            "constant": (constant, "/"),
        }
        found: dict[str, dict[str, list[float]]] = {name: {"ms": [], "rate": []} for name in ways}
        for _ in range(rounds):
            for name, (port, target) in ways.items():
                found[name]["ms"].append(statistics.median(latencies_ms(port, target, seconds / 3)))
                found[name]["rate"].append(requests_per_second(port, target, seconds))
    return {
        name: {key: statistics.median(values) for key, values in measured.items()}
        for name, measured in found.items()
    }


def cold_starts_s(folder: Path, python: str, rounds: int) -> dict[str, float]:
    """From the start of the process to the first answer, medians."""
    times: dict[str, list[float]] = {"constant": [], "search": []}
    with nginx(folder) as (store, _):
        for _ in range(rounds + 1):
            start = time.perf_counter()
            with free_port() as port, bare(folder, port, python):
                _first(port, "/")
                times["constant"].append(time.perf_counter() - start)
            start = time.perf_counter()
            with function(f"http://127.0.0.1:{store}", folder, python) as search:
                _first(search.port, "/studies?limit=1")
                times["search"].append(time.perf_counter() - start)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


def _first(port: int, target: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", target)
    assert connection.getresponse().read() == ANSWER
    connection.close()


def memory_mib(folder: Path, python: str) -> dict[str, float]:
    """Peak memory of the worker after answers of each kind, each in a process of its own."""
    peaks = {}
    huge = {"Content-Type": "application/octet-stream"}
    cases = {
        "1 row": ("/instances?limit=50000", "application/dicom+json"),
        "50,000 rows": ("/instances?limit=50000", "application/dicom+json"),
        "50,000 rows, CSV": ("/instances?limit=50000", "text/csv"),
        "1 GiB retrieve": ("/studies/1.2", "*/*"),
    }
    with fake_store() as store:
        for name, (target, accept) in cases.items():
            with function(store.url, folder, python) as search:
                store.answers(Answer(body=ANSWER))
                for _ in range(20):
                    search.send("/instances?limit=50000")
                if name.startswith("50"):
                    store.plan = lambda asked: (
                        Answer(body=large(ROWS))
                        if "offset" not in asked.query
                        else Answer(204, b"")
                    )
                elif name.startswith("1 G"):
                    store.plan = lambda _: Answer(
                        body=itertools.repeat(bytes(MIB), 1024), headers=huge
                    )
                read(search, target, accept)
                peaks[name] = peak_mib(search)
    return peaks


def report(result: dict[str, Any]) -> None:
    """Print it, and which targets are met."""
    peers, cold, memory = result["speed"], result["cold start s"], result["memory MiB"]
    print(f"{'':12}{'p50, 1 connection':>20}{f'requests/s, {CONNECTIONS} connections':>32}")
    for name, measured in peers.items():
        print(f"{name:12}{measured['ms']:17.2f} ms{measured['rate']:32,.0f}")
    print(f"\ncold start: constant {cold['constant']:.2f} s, search {cold['search']:.2f} s")
    print("peak memory: " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in memory.items()))
    values = {
        "added ms": peers["search"]["ms"] - peers["direct"]["ms"],
        "rate": peers["search"]["rate"] / peers["constant"]["rate"],
        "cold start": cold["search"] / cold["constant"],
        "memory MiB": max(memory.values()) - memory["1 row"],
    }
    print()
    for name, value in values.items():
        met = value >= TARGETS[name] if name == "rate" else value <= TARGETS[name]
        bound = "at least" if name == "rate" else "at most"
        print(
            f"{name:12}{value:8.2f}   target: {bound} {TARGETS[name]:g}  "
            f" {'met' if met else 'MISSED'}"
        )
    print(f"\nnginx adds {peers['nginx']['ms'] - peers['direct']['ms']:.2f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of each measurement of the rate"
    )
    parser.add_argument("--python", default=sys.executable, help="what the functions run with")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name in ("speed", "cold start s", "memory MiB"):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if name == "speed":
                result[name] = speed(folder, options.python, options.rounds, options.seconds)
            elif name == "cold start s":
                result[name] = cold_starts_s(folder, options.python, options.rounds)
            else:
                result[name] = memory_mib(folder, options.python)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    report(result)


if __name__ == "__main__":
    main()
