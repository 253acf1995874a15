"""How far a model overestimates its Dice is measured on the validation cases."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from maag import checkpoint
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.expected_dice import ExpectedDice, shortfall
from maag.inference import TorchRunner, argmax_labels
from maag.labels import IGNORE
from maag.metrics import score_case
from maag.models.build import build_segmentor
from maag.train.shortfalls import note_shortfalls

BATCH_SIZE = 24
"""Slices per forward pass."""


def test_a_fully_ignored_mask_counts_as_no_mask(tiny_config: Config, prepared: PreparedData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "best.safetensors"
    checkpoint.save_segmentor(path, tiny_config, build_segmentor(tiny_config).state_dict(), {})
    first, *others = prepared.cases
    masks = np.array(prepared.masks)
    masks[first.start : first.stop] = IGNORE
    found = []
    for data in (
        replace(prepared, masks=masks),
        replace(prepared, cases=(replace(first, has_mask=False), *others)),
    ):
        note_shortfalls(path, data, prepared.patient_ids, torch.device("cpu"))
        found.append(checkpoint.load_segmentor(path).info["shortfalls"])
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.slow
def test_shortfalls_use_all_slices_of_large_cases(tiny_config: Config, prepared: PreparedData, tmp_path: Path) -> None:
    """The other metadata of the weights stays unchanged."""
    torch.manual_seed(0)
    path, classes, count = tmp_path / "best.safetensors", tiny_config.data.classes, len(prepared.images)
    segmentor = build_segmentor(tiny_config)
    assert count > 2 * BATCH_SIZE
    # Three large cases, each with a different part of the slices, twice.
    order = np.concatenate([np.tile(part, 2) for part in np.array_split(np.arange(count), 3)])
    images, masks = prepared.images[order], prepared.masks[order]
    starts = [0, *np.cumsum([2 * len(part) for part in np.array_split(np.arange(count), 3)]).tolist()]
    cases = tuple(
        replace(prepared.cases[0], case_id=str(start), start=start, stop=stop) for start, stop in pairwise(starts)
    )
    assert all(case.stop - case.start > BATCH_SIZE for case in cases)
    real, expected = defaultdict(list), defaultdict(list)
    for case in cases:
        some = slice(case.start, case.stop)
        probabilities = TorchRunner(segmentor)(images[some])
        labels = argmax_labels(probabilities)
        estimate = ExpectedDice(len(classes))
        estimate.add(probabilities, labels)
        scores = score_case(labels, masks[some], (1.0, 1.0, 1.0), classes)
        for name, dice in estimate.by_class(classes).items():
            real[name].append(scores[name].dice)
            expected[name].append(dice)
    checkpoint.save_segmentor(path, tiny_config, segmentor.state_dict(), {"kind": "best", "dice": 0.5})
    data = replace(prepared, images=images, masks=masks, cases=cases)
    note_shortfalls(path, data, [cases[0].patient_id], torch.device("cpu"))
    info = checkpoint.load_segmentor(path).info
    recorded = info.pop("shortfalls")
    wanted = {name: shortfall(real[name], expected[name]) for name in expected}
    assert recorded == pytest.approx({name: value for name, value in wanted.items() if value is not None}, abs=1e-3)
    assert recorded
    assert info == {"kind": "best", "dice": 0.5}
