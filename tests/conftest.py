"""A tiny configuration, phantom data prepared with it, and cluster tests confined to one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.data.catalog import preset, reader_of, write_phantom
from maag.data.split_making import make_split
from maag.data.splits import Split

CLUSTERS = "tests/integration/cluster/"
TINY = {
    "data.size_px": [32, 32],
    "data.spacing_mm": 4.0,
    "segmentor.width": 4,
    "discriminator.width": 4,
    "optim.batch_size": 4,
    "optim.epochs": 2,
    "train.validate_every": 1,
    "train.validate_every_late": 1,
    "train.precision": "fp32",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the values in tests/golden")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute tests by file, but all cluster tests to one process: concurrent clusters would find each other."""
    from xdist.scheduler import LoadFileScheduling

    class ClustersInOneProcess(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return CLUSTERS if nodeid.startswith(CLUSTERS) else super()._split_scope(nodeid)

    return ClustersInOneProcess(config, log)


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return codec.override(preset("acdc", "fast"), TINY)


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    """`tiny_config` as command-line options."""
    return ["--preset", "fast", *(word for path, value in TINY.items() for word in ("--set", f"{path}={value}"))]


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic patients in ACDC's layout: two with scribbles, two for shapes, one each for validation and test."""
    out = tmp_path_factory.mktemp("phantom") / "acdc"
    write_phantom("acdc", out, 6, seed=3)
    return out


@pytest.fixture(scope="session")
def prepared(phantom_dir: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(phantom_dir, tiny_config.data, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def split(prepared: PreparedData, tiny_config: Config) -> Split:
    return make_split(prepared.patients, tiny_config.data, reader_of("acdc").split0)
