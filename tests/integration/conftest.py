"""Isolation of tests that run commands, and an exported artefact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import Maag

if TYPE_CHECKING:
    from s3_server import S3Server

# Ray lowers the priority of its workers by default, and the other test process would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(autouse=True)
def _restored_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_command_left_running() -> Iterator[None]:
    yield
    from maag_subprocess import Command

    while Command.running:
        Command.running[0].kill_tree()


@pytest.fixture
def maag(capsys: pytest.CaptureFixture[str]) -> Maag:
    return Maag(capsys)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of prepared data for the commands of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Server, dict[str, str]]]:
    """An S3 server with an empty bucket, and the environment that leads to it, which commands in this process use."""
    from s3_server import s3_server

    from deploy.inputs.source_kinds import store_of

    store_of.cache_clear()  # Its clients lead to servers of earlier tests.
    with s3_server() as found:
        for name, value in found[1].items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported, untrained cardiac model."""
    import torch

    from deploy.artifact.manifest import Source
    from deploy.exporting.onnx_export import export
    from maag.config.codec import override
    from maag.data.catalog import preset
    from maag.models.build import build_segmentor

    config = override(preset("acdc", "fast"), {"data.size_px": [32, 32], "data.spacing_mm": 2.0, "segmentor.width": 4})
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("model") / "artifact"
    export(build_segmentor(config), config, out, Source(checkpoint="best.safetensors", sha256="00"))
    return out
