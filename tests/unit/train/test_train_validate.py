"""Which slices, classes and patients the Dice of a validation covers."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.errors import SplitError
from maag.models.segmentor import Segmentor
from maag.train.state import TrainState
from maag.train.validate import Validator

CPU = torch.device("cpu")
BATCH_SIZE = 24
"""Slices per forward pass."""


@pytest.fixture
def segmentor(tiny_config: Config) -> Segmentor:
    return TrainState(tiny_config, CPU).segmentor


def test_validation_dice_covers_every_slice(tiny_config: Config, prepared: PreparedData, segmentor: Segmentor) -> None:
    assert len(prepared.images) > 2 * BATCH_SIZE
    with torch.no_grad():
        labels = segmentor.eval()(torch.from_numpy(np.array(prepared.images))).logits.argmax(dim=1).numpy()
    expected = {}
    for value, name in enumerate(tiny_config.data.classes[1:], 1):
        dices = []
        for case in prepared.cases:
            found, real = (part[case.start : case.stop] == value for part in (labels, prepared.masks))
            if size := found.sum() + real.sum():
                dices.append(2 * (found & real).sum() / size)
        expected[name] = float(np.mean(dices))
    found = Validator(prepared, prepared.patient_ids, tiny_config.data, CPU).dice(segmentor)
    assert found.per_class == pytest.approx(expected, abs=1e-6)
    assert found.mean == pytest.approx(np.mean(list(expected.values())), abs=1e-6)


@pytest.mark.parametrize(("num_patients", "fitted"), [(2, False), (4, True)])
def test_two_phases_of_a_patient_do_not_count_as_two_patients(
    tiny_config: Config, prepared: PreparedData, segmentor: Segmentor, num_patients: int, fitted: bool
) -> None:
    # Background wins everywhere by less than the largest offset, so that any other class would gain.
    torch.nn.init.zeros_(segmentor.classify.weight)
    with torch.no_grad():
        segmentor.classify.bias.copy_(torch.tensor([0.7, 0.0, 0.0, 0.0]))
    patients = prepared.patient_ids[:num_patients]
    assert sum(case.patient_id in patients for case in prepared.cases) == 2 * num_patients
    dice = Validator(prepared, patients, tiny_config.data, CPU, fit_offsets=True).dice(segmentor)
    assert any(dice.offsets) == fitted
    assert (dice.mean > 0) == fitted


def test_some_validation_patient_must_have_masks(tiny_config: Config, prepared: PreparedData) -> None:
    first, second, *_ = prepared.patient_ids
    cases = tuple(replace(case, has_mask=False) if case.patient_id == first else case for case in prepared.cases)
    data = replace(prepared, cases=cases)
    Validator(data, (first, second), tiny_config.data, CPU)
    with pytest.raises(SplitError, match="no validation patient has masks"):
        Validator(data, (first,), tiny_config.data, CPU)


def test_the_validator_does_not_copy_slices_into_memory(tiny_config: Config, prepared: PreparedData) -> None:
    tracemalloc.start()
    validator = Validator(prepared, prepared.patient_ids, tiny_config.data, CPU)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del validator
    assert held < prepared.images.nbytes / 4


def test_no_offsets_are_fitted_on_two_patients(
    tiny_config: Config, prepared: PreparedData, segmentor: Segmentor
) -> None:
    validator = Validator(prepared, prepared.patient_ids[:2], tiny_config.data, CPU, fit_offsets=True)
    without = Validator(prepared, prepared.patient_ids[:2], tiny_config.data, CPU)
    found = validator.dice(segmentor)
    assert found.offsets == (0.0,) * tiny_config.data.num_classes
    assert found.mean == without.dice(segmentor).mean
    assert len(validator._segment(segmentor).logits) == 0
