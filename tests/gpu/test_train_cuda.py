"""The same steps on a CUDA device as on the CPU."""

from __future__ import annotations

import pytest
import torch

from maag.config.schema import Config
from maag.data.batches import TrainingBatches
from maag.data.prepared import PreparedData
from maag.data.splits import Split
from maag.data.supervision import supervise
from maag.train.state import TrainState
from maag.train.step import update

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and PyTorch sees none"),
]


def test_an_update_agrees_with_the_cpu(tiny_config: Config, prepared: PreparedData, split: Split) -> None:
    losses = {}
    batch = TrainingBatches(supervise(prepared, split, tiny_config), tiny_config, torch.device("cpu")).at(0)
    for device in (torch.device("cpu"), torch.device("cuda")):
        state = TrainState(tiny_config, device)
        moved = batch._replace(**{name: part.to(device) for name, part in batch._asdict().items() if part is not None})
        state.set_rates(1e-4, 1e-4)
        losses[device.type] = float(update(state, moved, tiny_config)["supervised"])
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)
