"""What a new training state leaves alone."""

from __future__ import annotations

import torch

from maag.config.schema import Config
from maag.train.state import TrainState


def test_random_numbers_of_others_stay_as_they_were(tiny_config: Config) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    TrainState(tiny_config, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
