"""Which failures of a trial are remembered, and which are retried."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.config import codec
from maag.config.schema import Config
from maag.errors import ConfigError, DeviceMemoryError, NotFiniteError, StorageError, TrainingError
from tune.failures import remembering_failure


def test_settings_with_a_non_finite_loss_are_not_retried(tmp_path: Path, tiny_config: Config) -> None:
    with pytest.raises(NotFiniteError), remembering_failure(tmp_path, tiny_config):
        raise NotFiniteError("the loss became nan")
    with pytest.raises(NotFiniteError, match="the loss became nan"), remembering_failure(tmp_path, tiny_config):
        pytest.fail("it was tried again")
    with remembering_failure(tmp_path, codec.override(tiny_config, {"optim.lr": 5e-4})):
        pass


@pytest.mark.parametrize(
    "error",
    [
        StorageError("disk full"),
        RuntimeError("CUDA out of memory"),
        DeviceMemoryError("cuda: its memory does not hold training"),
        TrainingError("a training step could not be recorded"),
        ConfigError("train.compile=true: on a CPU it needs a C++ compiler"),
    ],
)
def test_failures_that_may_depend_on_the_node_are_retried(
    error: Exception, tmp_path: Path, tiny_config: Config
) -> None:
    with pytest.raises(type(error)), remembering_failure(tmp_path, tiny_config):
        raise error
    with remembering_failure(tmp_path, tiny_config):
        pass
