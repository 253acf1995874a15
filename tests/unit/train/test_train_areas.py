"""The area prior: areas of masks, their loss, and running means over batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.areas import Areas, measure_areas
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.labels import IGNORE
from maag.losses import area_loss
from maag.train.areas import RunningAreas, areas_loss
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.team import ALONE

CPU = torch.device("cpu")


def test_measured_areas_are_fractions_of_all_pixels() -> None:
    masks = np.zeros((3, 4, 5), np.uint8)
    masks[0, 0] = 1
    masks[1, 0, :2] = 2
    masks[1, 3] = IGNORE
    masks[2] = 3
    found = measure_areas(masks, np.array([0, 1]), 3)
    torch.testing.assert_close(found.mean, torch.tensor([(0.75 + 13 / 20) / 2, 0.125, 1 / 20]))
    torch.testing.assert_close(found.spread, torch.tensor([(0.75 - 13 / 20) / 2, 0.125, 1 / 20]))


def test_area_loss_is_zero_within_the_tolerance() -> None:
    mean, tolerance = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.0, 0.05, 0.02])
    within = torch.tensor([0.73, 0.16, 0.11], requires_grad=True)
    assert area_loss(within, mean, tolerance).item() == 0
    for predicted, sign in (([0.5, 0.35, 0.11], 1.0), ([0.8, 0.05, 0.11], -1.0)):
        areas = torch.tensor(predicted, requires_grad=True)
        loss = area_loss(areas, mean, tolerance)
        assert loss.item() == pytest.approx((0.1 / 0.2) ** 2 / 2, rel=1e-5)
        loss.backward()  # type: ignore[no-untyped-call]
        assert areas.grad is not None
        assert torch.sign(areas.grad).tolist() == [0.0, sign, 0.0]


def test_area_loss_ignores_a_class_that_no_mask_contains() -> None:
    mean, tolerance = torch.tensor([0.9, 0.1, 0.0]), torch.zeros(3)
    areas = torch.tensor([0.7, 0.2, 0.1], requires_grad=True)
    loss = area_loss(areas, mean, tolerance)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(1 / 2)
    assert areas.grad is not None
    assert areas.grad.tolist() == pytest.approx([0.0, 10.0, 0.0])


def test_running_areas_weight_batches_exponentially() -> None:
    running = RunningAreas(2)
    values, weights = [torch.tensor([0.9 - 0.01 * number, 0.1 + 0.01 * number]) for number in range(30)], []
    for value in values:
        mean, num_batches = running.add(value)
        weights = [0.98 * weight for weight in weights] + [1.0]
        expected = sum(weight * value for weight, value in zip(weights, values, strict=False)) / sum(weights)
        torch.testing.assert_close(mean, expected)
        assert float(num_batches) == pytest.approx(sum(weights) ** 2 / sum(weight**2 for weight in weights), rel=1e-5)
    assert set(running.state_dict()) == {"total", "weight"}


def test_running_areas_reveal_a_bias_that_one_batch_hides() -> None:
    areas = Areas(torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.1]), torch.tensor(1e6))
    running = RunningAreas(2)
    # Four fifths of the area in masks, well within the spread of four slices.
    logits = torch.tensor([0.92, 0.08]).log()[None, :, None, None].expand(4, 2, 8, 8)
    losses = []
    for _ in range(150):
        given = logits.clone().requires_grad_()
        loss = areas_loss(given, areas, running, 4, ALONE)
        losses.append(loss.item())
    assert losses[0] == 0.0
    assert losses[-1] > 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert (given.grad[:, 1] < 0).all()  # more of the class that is too small


def test_training_reduces_the_area_loss(tiny_config: Config, prepared: PreparedData) -> None:
    config = codec.override(tiny_config, {"loss.areas": 1.0, "loss.adversarial": 0, "loss.supervised": 0})
    split = make_split(prepared.patients, config.data)
    batch = TrainingBatches(supervise(prepared, split, config), config, CPU).at(0)
    assert batch.masks is None  # the area loss needs no discriminator
    state = TrainState(config, CPU)
    state.set_rates(2e-2, 0.0)
    losses = [float(update(state, batch, config)["areas"]) for _ in range(10)]
    assert losses[-1] < 0.7 * losses[0]
