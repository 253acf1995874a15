"""What a run produces: averaged weights, offsets and shortfalls, and the Dice measured with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import ALL_FEATURES, CPU, run_training

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.expected_dice import ExpectedDice, shortfall
from maag.inference import TorchRunner, argmax_labels
from maag.metrics import score_case
from maag.train.state import TrainState
from maag.train.validate import Validator

pytestmark = pytest.mark.slow


def test_the_final_weights_are_the_moving_average(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    outcome = run_training(codec.override(short_config, ALL_FEATURES), prepared, split, tmp_path / "run")
    _, last = checkpoint.load_state(tmp_path / "run" / "checkpoints" / "last.pt", CPU)
    final = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / "final.safetensors").segmentor
    for name, tensor in final.state_dict().items():
        assert torch.equal(tensor, last["parts"]["teacher"][name])
    assert not torch.equal(final.classify.weight, last["parts"]["segmentor"]["classify.weight"])
    measured = Validator(prepared, split.val, short_config.data, CPU).dice(final).mean
    assert measured == pytest.approx(outcome.final_dice, abs=1e-6)


def test_offsets_with_a_gain_are_in_the_final_weights(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    config = codec.override(short_config, {**ALL_FEATURES, "train.class_offsets": True})
    split = replace(split, val=(*split.val, *split.test, split.shapes[0]), shapes=split.shapes[1:], test=())
    outcome = run_training(config, prepared, split, tmp_path / "run")
    _, last = checkpoint.load_state(tmp_path / "run" / "checkpoints" / "last.pt", CPU)
    final = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / "final.safetensors")
    offsets = torch.tensor(final.info["class_offsets"])
    assert offsets[0] == 0
    assert offsets.any()
    torch.testing.assert_close(final.segmentor.classify.bias, last["parts"]["teacher"]["classify.bias"] + offsets)

    as_saved = Validator(prepared, split.val, config.data, CPU).dice(final.segmentor).mean
    assert as_saved == pytest.approx(outcome.final_dice, abs=1e-6)
    with torch.no_grad():
        final.segmentor.classify.bias -= offsets
    assert Validator(prepared, split.val, config.data, CPU).dice(final.segmentor).mean < as_saved


def test_best_and_final_record_the_shortfall_of_each_class(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    split = replace(split, val=(*split.val, *split.test, split.shapes[0]), shapes=split.shapes[1:], test=())
    run_training(short_config, prepared, split, tmp_path / "run")
    for name in ("best", "final"):
        found = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / f"{name}.safetensors")
        runner, classes = TorchRunner(found.segmentor), short_config.data.classes
        real, expected = defaultdict(list), defaultdict(list)
        for case in prepared.cases:
            if case.patient_id in split.val:
                probabilities = runner(np.array(prepared.images[case.start : case.stop]))
                labels = argmax_labels(probabilities)
                estimate = ExpectedDice(len(classes))
                estimate.add(probabilities, labels)
                mask = prepared.masks[case.start : case.stop]
                scores = score_case(labels, np.array(mask), (1.0, 1.0, 1.0), classes)
                for each, dice in estimate.by_class(classes).items():
                    real[each].append(scores[each].dice)
                    expected[each].append(dice)
        assert len(prepared.slices_of(split.val)) > 0
        wanted = {each: shortfall(real[each], expected[each]) for each in expected}
        assert found.info["shortfalls"] == pytest.approx(
            {each: value for each, value in wanted.items() if value is not None}, abs=1e-3
        )
        assert found.info["shortfalls"]


def test_validation_omits_a_class_that_no_mask_contains(
    short_config: Config, prepared: PreparedData, split: Split
) -> None:
    masks = np.where(prepared.masks == 2, 0, prepared.masks)
    segmentor = TrainState(short_config, CPU).segmentor
    torch.nn.init.zeros_(segmentor.classify.weight)
    with torch.no_grad():
        segmentor.classify.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    dice = Validator(replace(prepared, masks=masks), split.val, short_config.data, CPU).dice(segmentor)
    first, _, third = short_config.data.classes[1:]
    assert set(dice.per_class) == {first, third}
    assert dice.mean == pytest.approx(dice.per_class[first] / 2)


def test_best_and_final_record_the_orientations_of_the_training_images(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    training = {*split.scribbled, *split.dense, *split.unlabelled}
    flipped = {patient: "LAS" for patient in split.scribbled[1:]}
    cases = tuple(
        replace(case, orientation=flipped.get(case.patient_id, "LPS") if case.patient_id in training else "RPS")
        for case in prepared.cases
    )
    run_training(short_config, replace(prepared, cases=cases), split, tmp_path / "run")
    wanted = Counter(case.orientation for case in cases if case.patient_id in training)
    assert len(wanted) == 2
    for name in ("best", "final"):
        found = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / f"{name}.safetensors")
        assert found.info["orientations"] == [orientation for orientation, _ in wanted.most_common()]
