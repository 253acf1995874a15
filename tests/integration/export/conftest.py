"""An untrained segmentor, and artifacts exported from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.artifact.manifest import Source
from deploy.exporting.onnx_export import export
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.models.build import build_segmentor
from maag.models.segmentor import Segmentor

SOURCE = Source(checkpoint="best.safetensors", sha256="00")


@pytest.fixture(scope="session")
def config() -> Config:
    return override(preset("acdc", "fast"), {"data.size_px": [48, 32], "data.spacing_mm": 2.0, "segmentor.width": 4})


@pytest.fixture(scope="session")
def segmentor(config: Config) -> Segmentor:
    torch.manual_seed(0)
    segmentor = build_segmentor(config)
    for _ in range(20):  # Moves the batch normalisation statistics away from their initial values.
        segmentor(torch.randn(4, 1, 48, 32))
    return segmentor


@pytest.fixture(scope="session")
def artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact whose parity is also measured on `a case`."""
    out = tmp_path_factory.mktemp("export") / "artifact"
    sample = np.random.default_rng(3).normal(size=(3, 1, 48, 32)).astype(np.float32)
    export(segmentor, config, out, SOURCE, {"a case": sample})
    return out


@pytest.fixture(scope="session")
def dynamic_size_artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact for images of any size, with gates."""
    out = tmp_path_factory.mktemp("export") / "free"
    export(segmentor, config, out, SOURCE, gates=True, dynamic_size=True)
    return out


@pytest.fixture(scope="session")
def int8_artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "int8"
    calibration = np.random.default_rng(2).normal(size=(8, 1, 48, 32)).astype(np.float32)
    export(segmentor, config, out, SOURCE, precision="int8", calibration=calibration)
    return out
