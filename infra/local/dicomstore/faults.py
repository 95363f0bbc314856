"""Faults on demand, and a record of the requests: WSGI middleware around the store.

A rule is a JSON object; the first live rule that matches a request acts on it:

    {"method": "POST", "path": "studies", "kind": "status", "status": 503, "retry_after": 2,
     "count": 3}

- method, path: which requests, the path by a regular expression searched in it and its query;
  absent ones match everything.
- skip, count: how many matching requests pass first, and how many it acts on (absent: all).
- probability, seed: act on a random part of the matches, the same part for the same seed.
- when: `before` the store has done its work (the default) or `after` it, so that the work is done
  and the answer lost.

Kinds:

- status: answer `status` (and Retry-After) instead; body: its text, of an error its message.
- reset: drop the connection with a TCP reset.
- slow: wait delay_s before answering; bytes_per_s slows the body down.
- truncate: close the connection after `bytes` of the body, by default half of its first piece.
- stale: searches also find studies and series deleted in the last `seconds` (3600).
- lag: the metrics lack what was stored in the last `seconds` (3600).
- operation: the operation that this DELETE starts ends with error `code`, or with `failure` failed
  instances, or takes `seconds`.

The header `X-Fault` contains a rule for its own request only.
"""

import collections
import json
import math
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from infra.local.dicomstore.server import CutError, Environ, ResetError, StartResponse, WSGIApp

Rule = dict[str, Any]
OF_THE_STORE = ("stale", "lag", "operation")  # applied by the store itself
KINDS = ("status", "reset", "slow", "truncate", *OF_THE_STORE)
KNOWN = frozenset(
    (
        *("method", "path", "kind", "status", "retry_after", "body", "count", "skip"),
        *("probability", "seed", "when", "delay_s", "bytes_per_s", "bytes", "seconds"),
        *("code", "failure"),
    )
)
REASONS = {
    408: "Request Timeout",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
MAX_RULES = 10_000_000  # bytes of rules posted
RECENT = 1000  # requests remembered one by one

_LEVELS = r"(?:/studies/[^/:]+(?:/series/[^/:]+(?:/instances/[^/:]+)?)?)"
_KINDS = (
    ("POST", r"/dicomWeb/studies(/[^/:]+)?$", "store"),
    ("GET", r"/dicomWeb(/studies/[^/]+)?(/series/[^/]+)?/(studies|series|instances)$", "search"),
    ("GET", rf"/dicomWeb{_LEVELS}/metadata$", "metadata"),
    ("GET", rf"/dicomWeb{_LEVELS}(/frames/[^/]+)?/rendered$", "rendered"),
    ("GET", rf"/dicomWeb{_LEVELS}/frames/[^/]+$", "frames"),
    ("GET", rf"/dicomWeb{_LEVELS}/bulkdata/", "bulkdata"),
    ("GET", rf"/dicomWeb{_LEVELS}$", "retrieve"),
    ("DELETE", rf"/dicomWeb{_LEVELS}$", "delete"),
    ("GET", r"/operations(/[^/:]+)?$", "operation"),
)
_COMPILED = tuple((method, re.compile(pattern), kind) for method, pattern, kind in _KINDS)


def kind_of(method: str, path: str) -> str:
    """The kind of a request: store, search, metadata, retrieve, delete, operation, … or other."""
    for verb, pattern, kind in _COMPILED:
        if verb == method and pattern.search(path):
            return kind
    return "other"


def check(rule: Rule) -> Rule:
    """The rule, with its counts. Raises ValueError: what is wrong with it."""
    if not isinstance(rule, dict) or rule.get("kind") not in KINDS:
        raise ValueError(f"a rule is an object with a kind of {', '.join(KINDS)}")
    unknown = rule.keys() - KNOWN
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
    re.compile(rule.get("path", ""))
    chance = random.Random(rule.get("seed"))  # noqa: S311 - no secret
    return {**rule, "random": chance, "acted": 0, "seen": 0}


def _acts(rule: Rule, method: str, uri: str) -> bool:
    """Whether a rule is applied to a request; a match is always counted."""
    if rule.get("method", method) != method or not re.search(rule.get("path", ""), uri):
        return False
    rule["seen"] += 1
    if rule["seen"] <= rule.get("skip", 0) or rule["acted"] >= rule.get("count", math.inf):
        return False
    if rule["random"].random() >= rule.get("probability", 1):
        return False
    rule["acted"] += 1
    return True


class Faults:
    """The middleware. Rules live in memory; `/_faults`, `/_requests` and `/healthz` are its own
    paths."""

    def __init__(self, application: WSGIApp) -> None:
        self.application = application
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._counts: collections.Counter[str] = collections.Counter()
        self._recent: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECENT)

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Serve one request, with the fault that matches it."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path in ("/_faults", "/_requests", "/healthz"):
            status, answer = self._admin(path, method, environ)
            return _json(start, status, answer)
        entry: dict[str, Any] = {
            "method": method,
            "path": environ["REQUEST_URI"],
            "kind": kind_of(method, path),
            "status": 0,
        }
        with self._lock:
            self._counts[f"{method} {entry['kind']}"] += 1
            self._recent.append(entry)
        try:
            rule = self._rule(method, environ)
        except (ValueError, re.error) as error:
            return _json(start, "400 Bad Request", {"error": f"X-Fault: {error}"})

        def noted(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
            entry["status"] = int(status[:3])
            return start(status, headers, exc_info)

        if not rule:
            return self.application(environ, noted)
        entry["fault"] = rule["kind"]
        return self._faulty(rule, environ, noted)

    def _rule(self, method: str, environ: Environ) -> Rule | None:
        """The rule for a request. Raises ValueError, re.error: its own rule is malformed."""
        header = environ.get("HTTP_X_FAULT")
        if header:
            return check(json.loads(header))
        with self._lock:
            for rule in self._rules:
                if _acts(rule, method, environ["REQUEST_URI"]):
                    return rule
        return None

    def _faulty(self, rule: Rule, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        kind = rule["kind"]
        if kind in OF_THE_STORE:
            environ["dicomstore.fault"] = rule
            return self.application(environ, start)
        if kind == "slow":
            return self._slow(rule, environ, start)
        if kind == "truncate":
            return _truncated(self.application(environ, start), rule.get("bytes", -1))
        if rule.get("when") == "after":
            for _ in self.application(environ, lambda *_: None):
                pass
        if kind == "reset":
            raise ResetError
        return _instead(rule, start)

    def _slow(self, rule: Rule, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        delay_s = rule.get("delay_s", 0)
        after = rule.get("when") == "after"
        if not after:
            time.sleep(delay_s)
        answer = self.application(environ, start)
        if after:
            time.sleep(delay_s)
        return _throttled(answer, rule.get("bytes_per_s", 0))

    def _admin(self, path: str, method: str, environ: Environ) -> tuple[str, Any]:
        """Answer a request for the middleware's own paths: the status and the JSON."""
        if path == "/healthz":
            return "200 OK", {"status": "ok"}
        with self._lock:
            if path == "/_faults":
                return self._faults(method, environ)
            if method == "DELETE":
                self._counts.clear()
                self._recent.clear()
            elif method != "GET":
                return "405 Method Not Allowed", {"error": "GET or DELETE"}
            return "200 OK", {"counts": dict(self._counts), "recent": list(self._recent)}

    def _faults(self, method: str, environ: Environ) -> tuple[str, Any]:
        if method == "DELETE":
            self._rules.clear()
        elif method == "POST":
            try:
                posted = json.loads(environ["wsgi.input"].read(MAX_RULES))
                if not isinstance(posted, list):
                    posted = [posted]
                self._rules += [check(rule) for rule in posted]
            except (ValueError, re.error, RecursionError) as error:
                return "400 Bad Request", {"error": str(error)}
        elif method != "GET":
            return "405 Method Not Allowed", {"error": "GET, POST or DELETE"}
        return "200 OK", {"rules": [_shown(rule) for rule in self._rules]}


def _instead(rule: Rule, start: StartResponse) -> list[bytes]:
    """The answer of a `status` rule in place of the store's."""
    headers = []
    if "retry_after" in rule:
        headers.append(("Retry-After", str(rule["retry_after"])))
    code = rule.get("status", 503)
    status = f"{code} {REASONS.get(code, 'Fault')}"
    if code < 400:
        return _answer(start, status, rule.get("body", "").encode(), headers)
    error = {
        "code": code,
        "message": rule.get("body", "fault on demand"),
        "status": "UNAVAILABLE",
    }
    return _answer(start, status, json.dumps({"error": error}).encode(), headers)


def _shown(rule: Rule) -> Rule:
    return {key: value for key, value in rule.items() if key != "random"}


def _json(start: StartResponse, status: str, value: Any) -> list[bytes]:
    return _answer(start, status, json.dumps(value).encode(), [])


def _answer(
    start: StartResponse, status: str, body: bytes, headers: list[tuple[str, str]]
) -> list[bytes]:
    base = [("Content-Type", "application/json; charset=UTF-8"), ("Content-Length", str(len(body)))]
    start(status, base + headers)
    return [body]


def _throttled(chunks: Iterable[bytes], bytes_per_s: float) -> Iterator[bytes]:
    """The same bytes at this speed, twenty pieces a second; 0: no limit."""
    if not bytes_per_s:
        yield from chunks
        return
    step = max(1, int(bytes_per_s / 20))
    for chunk in chunks:
        for at in range(0, len(chunk), step):
            time.sleep(step / bytes_per_s)
            yield chunk[at : at + step]


def _truncated(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The first bytes; a negative limit is half of the first piece. Raises CutError at its end."""
    for chunk in chunks:
        left = limit
        if limit < 0:
            left = len(chunk) // 2
        if len(chunk) > left or (limit < 0 and chunk):
            yield chunk[:left]
            raise CutError
        limit = left - len(chunk)
        yield chunk
    raise CutError
