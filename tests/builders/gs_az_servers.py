"""Emulators of Google Cloud Storage (gs) and Azure Blob Storage (az) on loopback, behind the middleware of `faults`."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from faults import FaultMiddleware, read_body
from werkzeug.serving import make_server

BUCKET = "bucket"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Not secret: every Azure emulator uses this account and key."""
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server"}


class ReverseProxy:
    """A WSGI application that forwards requests to another server."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Forward one request (WSGI)."""
        headers = {
            name.removeprefix("HTTP_").replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
        }
        headers.pop("TRANSFER-ENCODING", None)
        upstream = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            upstream.request(environ["REQUEST_METHOD"], environ["RAW_URI"], read_body(environ), headers)
            response = upstream.getresponse()
            body = response.read()
        finally:
            upstream.close()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
        if not any(name.lower() == "content-length" for name, _ in kept):
            kept.append(("Content-Length", str(len(body))))
        start_response(f"{response.status} {response.reason}", kept)
        return [body]


class GsServer(FaultMiddleware):
    """Google Cloud Storage's emulator; reading an object takes a HEAD for its metadata and GETs for its ranges."""

    def method_and_key(self, environ: dict[str, Any]) -> tuple[str, str]:
        """Method and key of a request."""
        path, query = environ["RAW_URI"].partition("?")[0], parse_qs(environ["QUERY_STRING"])
        method, key = environ["REQUEST_METHOD"], unquote(path.partition("/o/")[2])
        if path.endswith("/o") and method == "GET":
            return "LIST", query.get("prefix", [""])[0]
        if method in ("POST", "PUT"):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = _BufferedBody(body)
            match = re.search(rb'"name": "((?:[^"\\]|\\.)*)"', body)
            return "PUT", match[1].decode("unicode_escape") if match else key
        return ("HEAD" if method == "GET" and not path.startswith("/download") else method), key


class AzServer(FaultMiddleware):
    """Azure Blob Storage's emulator."""

    def method_and_key(self, environ: dict[str, Any]) -> tuple[str, str]:
        """Method and key of a request."""
        query = parse_qs(environ["QUERY_STRING"])
        if query.get("comp") == ["list"]:
            return "LIST", query.get("prefix", [""])[0]
        path = unquote(environ["RAW_URI"].partition("?")[0])
        return environ["REQUEST_METHOD"], path.removeprefix(f"/{ACCOUNT}/{BUCKET}/")


class _BufferedBody:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, _: int = -1) -> bytes:
        return self._body


@contextmanager
def gs_server() -> Iterator[tuple[GsServer, dict[str, str]]]:
    """The server with an empty bucket, and the environment variables that point clients to it."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    try:
        with _listening(GsServer(ReverseProxy(port))) as (gs, address):
            yield gs, {"STORAGE_EMULATOR_HOST": address, "NO_GCE_CHECK": "true"}
    finally:
        server.stop()


@contextmanager
def az_server() -> Iterator[tuple[AzServer, dict[str, str]]]:
    """The server with an empty container, and the environment variables that point clients to it."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not on the path (npm install azurite)")
    blob = pytest.importorskip("azure.storage.blob", reason="azure-storage-blob is not installed")
    port = free_port()
    options = ["--inMemoryPersistence", "--blobPort", str(port), "--skipApiVersionCheck", "--disableTelemetry"]
    azurite = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with _listening(AzServer(ReverseProxy(port))) as (az, address):
            connection = (
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
                f"BlobEndpoint={address}/{ACCOUNT};"
            )
            _wait_for(port)
            with blob.BlobServiceClient.from_connection_string(connection) as client:
                client.create_container(BUCKET)
            yield az, {"AZURE_STORAGE_CONNECTION_STRING": connection}
    finally:
        azurite.terminate()
        azurite.wait(20)


@contextmanager
def _listening(application: Any) -> Iterator[tuple[Any, str]]:
    listener = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield application, f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()


def free_port() -> int:
    """A TCP port that is free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until, "azurite does not listen"
            time.sleep(0.05)
