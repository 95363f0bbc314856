"""The bare loop: copies objects from bucket to store with requests, and nothing else. Prints
seconds, CPU seconds and its peak resident memory in MiB.

python loop.py BUCKET_URL STORE_URL NAMES_FILE THREADS
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import requests


def main() -> None:
    """Copy every object once; connections are kept, bodies are streamed."""
    bucket, store, names_file, threads = sys.argv[1:]
    names: Iterator[str] = iter(json.loads(Path(names_file).read_text()))
    lock = threading.Lock()
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=int(threads)))
    session.headers["Accept-Encoding"] = "identity"

    def work() -> None:
        while True:
            with lock:
                name = next(names, None)
            if name is None:
                return
            quoted = quote(name, safe="")
            with session.get(f"{bucket}/o/{quoted}?alt=media", stream=True, timeout=60) as source:
                answer = session.post(
                    store,
                    data=Body(source),
                    headers={"Content-Type": "application/dicom"},
                    timeout=60,
                )
                answer.raise_for_status()

    began, cpu = time.perf_counter(), time.process_time()
    workers = [threading.Thread(target=work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([wall_s, cpu_s, peak_mib]))


class Body:
    """The source's bytes with their length."""

    def __init__(self, source: requests.Response) -> None:
        self._source = source

    def __len__(self) -> int:
        return int(self._source.headers["Content-Length"])

    def __iter__(self) -> Iterator[bytes]:
        return self._source.iter_content(65_536)


if __name__ == "__main__":
    main()
