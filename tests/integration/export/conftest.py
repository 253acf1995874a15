"""An untrained segmentor, and artifacts exported from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exported_graphs import CONFIG, SOURCE, graph
from exported_graphs import segmentor as made_segmentor

from deploy.exporting.onnx_export import export
from maag.config.schema import Config
from maag.models.segmentor import Segmentor


@pytest.fixture(scope="session")
def config() -> Config:
    return CONFIG


@pytest.fixture(scope="session")
def segmentor() -> Segmentor:
    return made_segmentor("plain")


@pytest.fixture(scope="session")
def artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact whose parity is also measured on `a case`."""
    out = tmp_path_factory.mktemp("export") / "artifact"
    sample = np.random.default_rng(3).normal(size=(3, 1, 48, 32)).astype(np.float32)
    export(segmentor, config, out, SOURCE, {"a case": sample}, graph=graph("fp32", False, False, "plain"))
    return out


@pytest.fixture(scope="session")
def dynamic_size_artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact for images of any size, with gates."""
    out = tmp_path_factory.mktemp("export") / "free"
    export(segmentor, config, out, SOURCE, gates=True, dynamic_size=True, graph=graph("fp32", True, True, "plain"))
    return out


@pytest.fixture(scope="session")
def int8_artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "int8"
    calibration = np.random.default_rng(2).normal(size=(8, 1, 48, 32)).astype(np.float32)
    export(
        segmentor,
        config,
        out,
        SOURCE,
        precision="int8",
        calibration=calibration,
        graph=graph("fp32", False, False, "plain"),
    )
    return out
