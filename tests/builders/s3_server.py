"""An S3 server on loopback that can count requests, block uploads and inject faults."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import boto3
from faults import Fault, FaultMiddleware
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

__all__ = ["BUCKET", "Fault", "S3Server", "client_of", "s3_server"]

BUCKET = "bucket"


class S3Server(FaultMiddleware):
    """moto behind the middleware of `faults`."""

    def __init__(self) -> None:
        super().__init__(DomainDispatcherApplication(create_backend_app))
        self._blocked_name: str | None = None
        self._unblocked = threading.Event()
        self.upload_blocked = threading.Event()
        """Set once an upload is blocked."""
        self.uploads: list[str] = []
        """Paths of all PUT requests, in order."""

    def block_upload(self, name: str) -> None:
        """Block the next upload whose path ends with `name`, until `unblock_upload` or for 120 s."""
        self.upload_blocked.clear()
        self._unblocked.clear()
        self._blocked_name = name

    def unblock_upload(self) -> None:
        """Let a blocked upload continue."""
        self._blocked_name = None
        self._unblocked.set()

    def put_object(self, key: str, content: bytes) -> None:
        """Put an object into the bucket directly, without a counted request."""
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, key, content)

    def method_and_key(self, environ: dict[str, Any]) -> tuple[str, str]:
        """Method and key of a request."""
        method, (_, key), query = environ["REQUEST_METHOD"], _bucket_and_key(environ), parse_qs(environ["QUERY_STRING"])
        return ("LIST", query.get("prefix", [""])[0]) if "list-type" in query else (method, key)

    def alter_object(self, fault: Fault, environ: dict[str, Any]) -> None:
        """Delete or overwrite the object that a request is for."""
        bucket, key = _bucket_and_key(environ)
        storage = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if fault.kind == "vanish":
            storage.delete_object(bucket, key)
        else:
            storage.put_object(bucket, key, b"other content")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Handle one request (WSGI)."""
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "PUT":
            self.uploads.append(path)
            if self._blocked_name and path.endswith(self._blocked_name):
                self._blocked_name = None
                self.upload_blocked.set()
                self._unblocked.wait(120)
        return super().__call__(environ, start_response)


def _bucket_and_key(environ: dict[str, Any]) -> tuple[str, str]:
    path = environ["PATH_INFO"].encode("latin-1").decode()
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key


@contextmanager
def s3_server() -> Iterator[tuple[S3Server, dict[str, str]]]:
    """The server with an empty bucket, and the environment variables that point clients to it."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
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
        server.unblock_upload()
        listener.shutdown()
        listener.server_close()


def client_of(environment: dict[str, str]) -> Any:
    """A boto3 client for the server that these environment variables name."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
