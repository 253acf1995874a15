"""What a new training state is made of, and what it leaves alone."""

from __future__ import annotations

import torch

from maag.config import codec
from maag.config.schema import Config
from maag.train.state import TrainState


def test_random_numbers_of_others_stay_as_they_were(tiny_config: Config) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    TrainState(tiny_config, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_the_seeds_alone(tiny_config: Config) -> None:
    weights = []
    for seed, others in ((1, 7), (1, 8), (2, 7)):
        torch.manual_seed(others)
        state = TrainState(codec.override(tiny_config, {"train.seed": seed}), torch.device("cpu"))
        assert state.discriminator is not None
        networks = (state.segmentor, state.discriminator)
        weights.append(torch.cat([each.flatten() for network in networks for each in network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_it_is_the_average_that_teaches(tiny_config: Config) -> None:
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
