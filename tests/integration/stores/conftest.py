"""Stores of each kind: a folder, and buckets on local servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from bucket_stores import FAST_RETRIES, SERVERS, CloudLocation
from faults import FaultMiddleware
from s3_server import BUCKET

from maag.storage.opening import open_store
from maag.storage.store import Store


@pytest.fixture(scope="session")
def _servers() -> Iterator[Callable[[str], tuple[FaultMiddleware, dict[str, str]]]]:
    with contextlib.ExitStack() as stack:
        started: dict[str, tuple[FaultMiddleware, dict[str, str]]] = {}

        def start(scheme: str) -> tuple[FaultMiddleware, dict[str, str]]:
            if scheme not in started:
                started[scheme] = stack.enter_context(SERVERS[scheme]())
            return started[scheme]

        yield start


def _cloud_location(scheme: str, start: Any, monkeypatch: pytest.MonkeyPatch) -> CloudLocation:
    server, environment = start(scheme)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    prefix = f"test {uuid4().hex[:8]}"
    server.faults.clear()
    server.counts.clear()
    return CloudLocation(open_store(f"{scheme}://{BUCKET}/{prefix}/", FAST_RETRIES), server, scheme, prefix)


@pytest.fixture(params=list(SERVERS))
def cloud(request: pytest.FixtureRequest, _servers: Any, monkeypatch: pytest.MonkeyPatch) -> CloudLocation:
    return _cloud_location(request.param, _servers, monkeypatch)


@pytest.fixture
def s3(_servers: Any, monkeypatch: pytest.MonkeyPatch) -> CloudLocation:
    return _cloud_location("s3", _servers, monkeypatch)


@pytest.fixture(params=["local", *SERVERS])
def store(request: pytest.FixtureRequest, _servers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "store"), FAST_RETRIES)
    return _cloud_location(request.param, _servers, monkeypatch).store


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
