"""What a new training state consists of, and what it leaves unchanged."""

from __future__ import annotations

import torch

from maag.config import codec
from maag.config.schema import Config
from maag.train.state import TrainState


def test_a_new_state_leaves_the_global_random_state_unchanged(tiny_config: Config) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    TrainState(tiny_config, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_depend_only_on_the_seed(tiny_config: Config) -> None:
    weights = []
    for seed, global_seed in ((1, 7), (1, 8), (2, 7)):
        torch.manual_seed(global_seed)
        state = TrainState(codec.override(tiny_config, {"train.seed": seed}), torch.device("cpu"))
        assert state.discriminator is not None
        networks = (state.segmentor, state.discriminator)
        weights.append(torch.cat([each.flatten() for network in networks for each in network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_accelerated_teacher_is_the_moving_average(tiny_config: Config) -> None:
    config = codec.override(tiny_config, {"teacher.decay": 0.9, "loss.teacher": 1.0})
    state = TrainState(config, torch.device("cpu"))
    assert state.accelerated_teacher is not None
    assert state.teacher is not None
    images = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = state.accelerated_teacher(images).logits
        state.segmentor.classify.bias += 1
        torch.testing.assert_close(state.accelerated_teacher(images).logits, before)
        state.teacher.classify.bias += 1
        torch.testing.assert_close(state.accelerated_teacher(images).logits, before + 1)
