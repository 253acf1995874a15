"""Weights of the loss terms on unlabelled pixels, and what the terms depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.areas import Areas
from maag.data.slices.batches import Batch, TeacherView
from maag.labels import IGNORE
from maag.models.segmentor import SegmentorOutput
from maag.train.areas import RunningAreas, areas_loss
from maag.train.state import TrainState
from maag.train.team import ALONE
from maag.train.unlabelled import SoftLabels, soft_label_loss, unlabelled_terms

CPU = torch.device("cpu")
ALL_TERMS = {
    "teacher.decay": 0.9,
    "teacher.confidence": 0.0,
    "teacher.gates": 0.5,
    "loss.teacher": 1.0,
    "loss.areas": 1.0,
}
FAR_AREAS = Areas(torch.tensor([0.97, 0.01, 0.01, 0.01]), torch.zeros(4), torch.tensor(9.0))
"""Areas far from those of any new segmentor's predictions."""


@pytest.fixture
def batch(tiny_config: Config) -> Batch:
    """Four slices without a labelled pixel, and as many unlabelled ones."""
    generator = torch.Generator().manual_seed(0)
    images, others = (torch.randn(4, 1, 32, 32, generator=generator) for _ in range(2))
    labels = torch.full((4, 32, 32), IGNORE, dtype=torch.uint8)
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(8, 2, 3)
    grids = torch.nn.functional.affine_grid(identity, [8, 1, 32, 32], align_corners=False)
    view = TeacherView(torch.cat([images, others]), grids)
    return Batch(images, labels, others, None, teacher_view=view, areas=FAR_AREAS)


def terms(
    tiny_config: Config, batch: Batch, changes: dict[str, Any] | None = None, *, ramp: float = 1.0
) -> dict[str, Tensor]:
    config = codec.override(tiny_config, {**ALL_TERMS, **(changes or {})})
    return terms_of(state_of(config, ramp), batch, config)


def state_of(config: Config, ramp: float = 1.0) -> TrainState:
    state = TrainState(config, CPU)
    state.ramp = ramp
    return state


def terms_of(state: TrainState, batch: Batch, config: Config) -> dict[str, Tensor]:
    images = batch.images if batch.unlabelled is None else torch.cat([batch.images, batch.unlabelled])
    output: SegmentorOutput = state.segmentor.train()(images)
    return {name: term.detach() for name, term in unlabelled_terms(state, output, batch, config).items()}


def test_labelled_pixels_are_excluded_from_the_teacher_term_but_not_from_gates(
    tiny_config: Config, batch: Batch
) -> None:
    alone = batch._replace(unlabelled=None, teacher_view=TeacherView(*(part[:4] for part in batch.teacher_view or ())))
    unknown, known = (
        terms(tiny_config, alone._replace(labels=torch.full_like(alone.labels, value))) for value in (IGNORE, 0)
    )
    assert unknown["teacher"] > 0
    assert known["teacher"] == 0
    assert known["gates"] == unknown["gates"] > 0


def test_each_term_has_its_weight_and_gates_also_the_teacher_weight(tiny_config: Config, batch: Batch) -> None:
    once = terms(tiny_config, batch)
    twice = terms(tiny_config, batch, {"teacher.gates": 1.0})
    torch.testing.assert_close(twice, {**once, "gates": 2 * once["gates"]})
    thrice = terms(tiny_config, batch, {"loss.teacher": 3.0})
    torch.testing.assert_close(thrice, {**once, "gates": 3 * once["gates"], "teacher": 3 * once["teacher"]})
    larger = terms(tiny_config, batch, {"loss.areas": 4.0})
    torch.testing.assert_close(larger, {**once, "areas": 4 * once["areas"]})
    assert set(terms(tiny_config, batch, {"teacher.gates": 0.0})) == {"teacher", "areas"}


def test_the_teacher_term_uses_the_moving_average_and_not_the_segmentor(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, ALL_TERMS)
    state = state_of(config)
    assert state.teacher is not None
    assert batch.unlabelled is not None
    torch.nn.init.zeros_(state.teacher.classify.weight)
    with torch.no_grad():
        state.teacher.classify.bias.copy_(torch.tensor([2.0, 0.0, 1.0, 0.0]))
    probabilities = torch.tensor([2.0, 0.0, 1.0, 0.0]).softmax(dim=0)[None, :, None, None].expand(8, 4, 32, 32)
    logits = state.segmentor.train()(torch.cat([batch.images, batch.unlabelled])).logits.detach()
    expected = soft_label_loss(logits, SoftLabels(probabilities, torch.ones(8, 32, 32, dtype=torch.bool)), ALONE)
    torch.testing.assert_close(terms_of(state, batch, config)["teacher"], expected)


def test_all_terms_are_scaled_by_the_ramp(tiny_config: Config, batch: Batch) -> None:
    whole, quarter = terms(tiny_config, batch), terms(tiny_config, batch, ramp=0.25)
    assert set(whole) == {"teacher", "gates", "areas"}
    assert all(term > 0 for term in whole.values())
    torch.testing.assert_close(quarter, {name: term / 4 for name, term in whole.items()})


@pytest.mark.parametrize("with_unlabelled", [True, False])
def test_areas_cover_all_predicted_slices(tiny_config: Config, batch: Batch, with_unlabelled: bool) -> None:
    without_view = (
        batch._replace(teacher_view=None) if with_unlabelled else batch._replace(teacher_view=None, unlabelled=None)
    )
    config = codec.override(tiny_config, ALL_TERMS)
    state = state_of(config)
    assert set(terms_of(state, without_view, config)) == {"areas"}
    assert state.areas is not None
    torch.testing.assert_close(state.areas.total.sum(), torch.tensor(1.0))  # a mean: the classes share each slice


@pytest.mark.parametrize(("num_masks", "tolerance"), [(4.0, 0.2 * (1 / 4 + 1 / 4) ** 0.5), (1e9, 0.2 * (1 / 4) ** 0.5)])
def test_few_masks_widen_the_area_tolerance(num_masks: float, tolerance: float) -> None:
    areas = Areas(torch.tensor([0.7, 0.3]), torch.tensor([0.1, 0.1]), torch.tensor(num_masks))

    def loss_at(distance: float) -> float:
        logits = torch.tensor([0.7 - distance, 0.3 + distance]).log()[None, :, None, None].expand(4, 2, 8, 8)
        return float(areas_loss(logits, areas, RunningAreas(2), 4, ALONE))

    assert loss_at(0.95 * tolerance) == 0
    assert loss_at(1.05 * tolerance) == pytest.approx((0.05 * tolerance / 0.3) ** 2, rel=1e-3)
