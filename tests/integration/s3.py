"""An S3 server on loopback whose uploads can be held in the middle; for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class S3Server:
    """moto behind a gate."""

    def __init__(self) -> None:
        self._application: Application = DomainDispatcherApplication(create_backend_app)
        self._held: str | None = None
        self._released = threading.Event()
        self.holding = threading.Event()
        """Set once an upload is held."""
        self.uploads: list[str] = []
        """Paths of all uploads, in order."""

    def hold(self, name: str) -> None:
        """Let the next upload of a file of this name begin and not end."""
        self.holding.clear()
        self._released.clear()
        self._held = name

    def release(self) -> None:
        """Let go on what is held."""
        self._held = None
        self._released.set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI."""
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "PUT":
            self.uploads.append(path)
            if self._held and path.endswith(self._held):
                self._held = None
                self.holding.set()
                self._released.wait(120)
        return self._application(environ, start_response)


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
