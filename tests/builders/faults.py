"""A gate before a storage's server, which counts requests and lets them fail.

    with s3_server() as (server, environment):
        server.faults.add(Fault("503", "volumes/*", times=2))     # the next two requests for such keys
        server.faults.add(Fault("drop", "volumes/7.nii.gz", method="GET"))
        ...
        assert server.counts["GET", "volumes/7.nii.gz"] == 2

Keys are those within the bucket, and patterns are those of `fnmatch` (`*` also crosses `/`); for a listing the key is
its prefix and the method is LIST. Everything may be used from any thread.
"""

from __future__ import annotations

import fnmatch
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_CODES = {
    "400": "ExpiredToken",
    "401": "Unauthorized",
    "403": "AccessDenied",
    "404": "NoSuchKey",
    "412": "PreconditionFailed",
    "429": "TooManyRequests",
    "500": "InternalError",
    "502": "BadGateway",
    "503": "SlowDown",
    "504": "GatewayTimeout",
}


@dataclass(frozen=True)
class Fault:
    """What happens to the next `times` requests for keys that match.

    Kinds:
        "400" … "504": the answer is this error, of S3's usual code; nothing is done.
        "close": the connection is closed before there is an answer; nothing is done.
        "drop": the connection is closed after half of the body; an upload is done and its answer is lost.
        "short": the body ends half-way, in good order, and its length says so too.
        "flip": one bit of the body is another one.
        "slow": the body comes in eight pieces, with `wait_s` seconds before each.
        "stall": half of the body comes, and the rest after `wait_s` seconds.
        "vanish": the object is deleted before the request is answered (S3 only).
        "change": the object is overwritten with other content before the request is answered (S3 only).
    """

    kind: str
    key: str = "*"
    times: int = 1
    method: str = "*"
    """GET, HEAD, PUT, POST, DELETE, LIST, or any."""
    wait_s: float = 0.05


class Faults:
    """The faults that wait for their requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Put a fault behind those that wait already; one request meets one fault."""
        with self._lock:
            self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Forget the faults that have not happened."""
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """Faults that have not happened as often as they should."""
        with self._lock:
            return [fault for fault, _ in self._waiting]

    def take(self, method: str, key: str) -> Fault | None:
        """The first fault that matches a request, which has then happened once more."""
        with self._lock:
            for i, (fault, left) in enumerate(self._waiting):
                if fault.method in ("*", method) and fnmatch.fnmatchcase(key, fault.key):
                    self._waiting[i : i + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None


class Gate:
    """A WSGI application before another one."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many requests came, by method and key, also those that met a fault."""
        self.faults = Faults()

    def asked_for(self, environ: dict[str, Any]) -> tuple[str, str]:
        """Method and key of a request."""
        raise NotImplementedError

    def meddle(self, fault: Fault, environ: dict[str, Any]) -> None:
        """Delete or change the object that a request is for."""
        raise NotImplementedError

    def count(self, method: str, pattern: str = "*") -> int:
        """How many requests of that method came for keys that match."""
        with self._lock:
            counts = list(self.counts.items())
        return sum(n for (m, key), n in counts if m == method and fnmatch.fnmatchcase(key, pattern))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI."""
        method, key = self.asked_for(environ)
        with self._lock:
            self.counts[method, key] += 1
        fault = self.faults.take(method, key)
        if fault is None:
            return self._application(environ, start_response)
        return self._fail(fault, environ, start_response)

    def _fail(self, fault: Fault, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if fault.kind in _CODES:
            read_all(environ)
            code = _CODES[fault.kind]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            start_response(f"{fault.kind} {code}", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]
        if fault.kind == "close":
            read_all(environ)
            _cut(environ)
        if fault.kind in ("vanish", "change"):
            self.meddle(fault, environ)
            return self._application(environ, start_response)
        answered: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self._application(environ, lambda status, headers, *_: answered.append((status, headers))))
        (status, headers), half = answered[0], len(body) // 2
        if fault.kind == "flip" and body:
            body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        if fault.kind == "short" and body:
            body = body[:half]
            headers = [(name, str(half) if name.lower() == "content-length" else value) for name, value in headers]
        start_response(status, headers)
        return _pieces(fault, body, environ)


def read_all(environ: dict[str, Any]) -> bytes:
    """The body of a request."""
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _pieces(fault: Fault, body: bytes, environ: dict[str, Any]) -> Iterator[bytes]:
    half = len(body) // 2
    if fault.kind == "slow":
        size = max(1, -(-len(body) // 8))
        for start in range(0, len(body), size):
            time.sleep(fault.wait_s)
            yield body[start : start + size]
    elif fault.kind in ("drop", "stall"):
        if half:
            yield body[:half]
        if fault.kind == "drop":
            _cut(environ)
        time.sleep(fault.wait_s)
        yield body[half:]
    else:
        yield body


def _cut(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError
