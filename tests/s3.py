"""An S3 server on loopback behind a gate that counts, holds and breaks requests; for tests.

    with s3_server() as (server, environment):
        server.faults.add(Fault("503", "volumes/*", times=2))     # the next two requests for such keys
        server.faults.add(Fault("drop", "volumes/7.nii.gz", method="GET"))
        ...
        assert server.counts["GET", "volumes/7.nii.gz"] == 2

Keys are those within the bucket, and patterns are those of `fnmatch` (`*` also crosses `/`); for a listing the key is
its prefix and the method is LIST.
"""

from __future__ import annotations

import fnmatch
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
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
        "drop": the connection is cut after half of the body; an upload is done and its answer is lost.
        "short": the body ends half-way, in good order, and its length says so too.
        "flip": one byte of the body is another one.
        "slow": the body comes in eight pieces, with `wait_s` seconds before each.
        "stall": half of the body comes, and the rest after `wait_s` seconds.
        "vanish": the object is deleted before the request is answered.
        "change": the object is overwritten with other content before the request is answered.
    """

    kind: str
    key: str = "*"
    times: int = 1
    method: str = "*"
    """GET, HEAD, PUT, POST, DELETE, LIST, or any."""
    wait_s: float = 0.05


class Faults:
    """The faults that wait for their requests; may be changed at any time, from any thread."""

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


class S3Server:
    """moto behind a gate."""

    def __init__(self) -> None:
        self._application: Application = DomainDispatcherApplication(create_backend_app)
        self._held: str | None = None
        self._released = threading.Event()
        self._lock = threading.Lock()
        self.holding = threading.Event()
        """Set once an upload is held."""
        self.uploads: list[str] = []
        """Paths of all uploads, in order."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many requests came, by method and key, also those that met a fault."""
        self.faults = Faults()

    def hold(self, name: str) -> None:
        """Let the next upload of a file of this name begin and not end."""
        self.holding.clear()
        self._released.clear()
        self._held = name

    def release(self) -> None:
        """Let go on what is held."""
        self._held = None
        self._released.set()

    def count(self, method: str, pattern: str = "*") -> int:
        """How many requests of that method came for keys that match."""
        with self._lock:
            counts = list(self.counts.items())
        return sum(n for (m, key), n in counts if m == method and fnmatch.fnmatchcase(key, pattern))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI."""
        path = environ["PATH_INFO"].encode("latin-1").decode()
        method, key = environ["REQUEST_METHOD"], path.removeprefix("/").partition("/")[2]
        query = parse_qs(environ["QUERY_STRING"])
        if method == "GET" and not key and "list-type" in query:
            method, key = "LIST", query.get("prefix", [""])[0]
        with self._lock:
            self.counts[method, key] += 1
            if method == "PUT":
                self.uploads.append(path)
        if method == "PUT" and self._held and path.endswith(self._held):
            self._held = None
            self.holding.set()
            self._released.wait(120)
        fault = self.faults.take(method, key)
        return (
            self._application(environ, start_response) if fault is None else self._fail(fault, environ, start_response)
        )

    def _fail(self, fault: Fault, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if fault.kind in _CODES:
            _read_all(environ)
            code = _CODES[fault.kind]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
            start_response(
                f"{fault.kind} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            )
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]
        if fault.kind == "close":
            _read_all(environ)
            _cut(environ)
        if fault.kind in ("vanish", "change"):
            self._meddle(fault, environ)
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

    @staticmethod
    def _meddle(fault: Fault, environ: dict[str, Any]) -> None:
        bucket, _, key = environ["PATH_INFO"].encode("latin-1").decode().removeprefix("/").partition("/")
        storage = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if fault.kind == "vanish":
            storage.delete_object(bucket, key)
        else:
            storage.put_object(bucket, key, b"other content")


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


def _read_all(environ: dict[str, Any]) -> None:
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (chunk := environ["wsgi.input"].read(min(left, 1 << 20))):
        left -= len(chunk)


def _cut(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


@contextmanager
def s3_server() -> Iterator[tuple[S3Server, dict[str, str]]]:
    """The server with an empty bucket, and the environment that leads to it."""
    server = S3Server()
    listener = make_server("127.0.0.1", 0, server, threaded=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        client_of(environment).create_bucket(Bucket=BUCKET)
        yield server, environment
    finally:
        server.release()
        listener.shutdown()


def client_of(environment: dict[str, str]) -> Any:
    """A boto3 client for the server of that environment."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
