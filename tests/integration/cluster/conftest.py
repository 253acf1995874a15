"""A run whose updates do not depend on the number of workers, and its history without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import run as run_here
from maag_subprocess import LOW_LEARNING_RATES, read_metrics

EPOCHS = 8


@pytest.fixture(scope="package")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def _shared_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(cache))


@pytest.fixture(scope="package")
def words(phantom_dir: Path, tiny_options: list[str]) -> list[object]:
    """Arguments of the run."""
    more = (
        *LOW_LEARNING_RATES,
        "--set",
        "segmentor.sync_batchnorm=true",
        "--set",
        "optim.batch_size=3",
        "--epochs",
        EPOCHS,
    )
    return ["train", "--dataset", "acdc", "--data", phantom_dir, *tiny_options, *more]


@pytest.fixture(scope="package")
def undisturbed(words: list[object], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of the run in one process, without Ray."""
    run = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAAG_CACHE", str(cache))
        assert run_here(*words, "--out", run) == 0
    return read_metrics(run)
