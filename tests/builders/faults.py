"""WSGI middleware for storage servers that counts requests and injects faults.

    with s3_server() as (server, environment):
        server.faults.add(Fault("503", "volumes/*", times=2))     # the next two requests for such keys
        server.faults.add(Fault("drop", "volumes/7.nii.gz", method="GET"))
        ...
        assert server.counts["GET", "volumes/7.nii.gz"] == 2

Keys are relative to the bucket, and patterns are those of `fnmatch` (`*` also matches `/`). A listing has the method
LIST and its prefix as key. Everything is thread-safe.
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
    """What happens to the next `times` matching requests.

    Kinds:
        "400" … "504": respond with this status and S3's usual error code; the request has no effect.
        "close": close the connection without a response; the request has no effect.
        "drop": close the connection after half of the body; an upload takes effect, but its response is lost.
        "short": send a well-formed response with only half of the body and a matching Content-Length.
        "flip": flip one bit of the body.
        "slow": send the body in eight pieces, with `wait_s` seconds before each.
        "stall": send half of the body, and the rest after `wait_s` seconds.
        "vanish": delete the object before responding (S3 only).
        "change": overwrite the object with other content before responding (S3 only).
    """

    kind: str
    key: str = "*"
    times: int = 1
    method: str = "*"
    """GET, HEAD, PUT, POST, DELETE, LIST, or * for any."""
    wait_s: float = 0.05


class Faults:
    """A queue of faults that wait for matching requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Append a fault; each request gets at most one."""
        with self._lock:
            self._pending.append((fault, fault.times))

    def clear(self) -> None:
        """Discard all pending faults."""
        with self._lock:
            self._pending.clear()

    def pending(self) -> list[Fault]:
        """Faults that have not yet happened `times` times."""
        with self._lock:
            return [fault for fault, _ in self._pending]

    def take(self, method: str, key: str) -> Fault | None:
        """Use up one occurrence of the first fault that matches a request; None if none does."""
        with self._lock:
            for i, (fault, left) in enumerate(self._pending):
                if fault.method in ("*", method) and fnmatch.fnmatchcase(key, fault.key):
                    self._pending[i : i + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None


class FaultMiddleware:
    """WSGI middleware that counts requests and injects faults."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Number of requests by method and key, including those that got a fault."""
        self.faults = Faults()

    def method_and_key(self, environ: dict[str, Any]) -> tuple[str, str]:
        """Method and key of a request."""
        raise NotImplementedError

    def alter_object(self, fault: Fault, environ: dict[str, Any]) -> None:
        """Delete or overwrite the object that a request is for."""
        raise NotImplementedError

    def count(self, method: str, pattern: str = "*") -> int:
        """Number of requests of that method for matching keys."""
        with self._lock:
            counts = list(self.counts.items())
        return sum(n for (m, key), n in counts if m == method and fnmatch.fnmatchcase(key, pattern))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Handle one request (WSGI)."""
        method, key = self.method_and_key(environ)
        with self._lock:
            self.counts[method, key] += 1
        fault = self.faults.take(method, key)
        if fault is None:
            return self._application(environ, start_response)
        return self._fail(fault, environ, start_response)

    def _fail(self, fault: Fault, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if fault.kind in _CODES:
            read_body(environ)
            code = _CODES[fault.kind]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected by a test</Message></Error>"
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            start_response(f"{fault.kind} {code}", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]
        if fault.kind == "close":
            read_body(environ)
            _reset_connection(environ)
        if fault.kind in ("vanish", "change"):
            self.alter_object(fault, environ)
            return self._application(environ, start_response)
        started: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self._application(environ, lambda status, headers, *_: started.append((status, headers))))
        (status, headers), half = started[0], len(body) // 2
        if fault.kind == "flip" and body:
            body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        if fault.kind == "short" and body:
            body = body[:half]
            headers = [(name, str(half) if name.lower() == "content-length" else value) for name, value in headers]
        start_response(status, headers)
        return _body_chunks(fault, body, environ)


def read_body(environ: dict[str, Any]) -> bytes:
    """The body of a request."""
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _body_chunks(fault: Fault, body: bytes, environ: dict[str, Any]) -> Iterator[bytes]:
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
            _reset_connection(environ)
        time.sleep(fault.wait_s)
        yield body[half:]
    else:
        yield body


def _reset_connection(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError
