"""Calibrate a finished segmentor's expected Dice on the validation cases, and store the result with its weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from maag import checkpoint
from maag.data.cache.prepared import PreparedCase, PreparedData
from maag.expected_dice import ExpectedDice, shortfall
from maag.inference import Runner, TorchRunner, argmax_labels
from maag.labels import IGNORE
from maag.train.offsets import dice_of_cases

_SLICES_AT_ONCE = 24
_DIGITS = 3


def note_shortfalls(path: Path, prepared: PreparedData, patients: Collection[str], device: torch.device) -> None:
    """Write the shortfall of each class, where it can be estimated, into the `info` of the segmentor at `path`.

    Args:
        path: a file that `save_segmentor` wrote; its weights do not change.
        prepared: the data set that it was trained on.
        patients: those who validate; their cases with masks are measured.
        device: where to run the segmentor.

    Raises:
        CheckpointError: the file is damaged.
        StorageError: it cannot be read or written.
    """
    trained = checkpoint.load_segmentor(path)
    classes = trained.config.data.classes
    runner = TorchRunner(trained.segmentor, device, _SLICES_AT_ONCE)
    real, expected = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for case in prepared.cases:
        if case.patient_id in patients and case.has_mask:
            dice, by_class = _measure(runner, prepared, case, classes)
            for name, value in by_class.items():
                if not math.isnan(dice[name]):  # as it is where all its labels are on unlabelled pixels of the mask
                    real[name].append(dice[name])
                    expected[name].append(value)
    found = {name: shortfall(real[name], expected[name]) for name in classes if name in expected}
    shortfalls = {name: round(value, _DIGITS) for name, value in found.items() if value is not None}
    weights = trained.segmentor.state_dict()
    checkpoint.save_segmentor(path, trained.config, weights, {**trained.info, "shortfalls": shortfalls})


def _measure(
    runner: Runner, prepared: PreparedData, case: PreparedCase, classes: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, float]]:
    """Real and expected Dice of a case on the training grid, by class.

    The real one is NaN for a class that is absent from mask and prediction; the expected one has the predicted classes.
    """
    expected, confusion = ExpectedDice(len(classes)), np.zeros(len(classes) ** 2, np.int64)
    for start in range(case.start, case.stop, _SLICES_AT_ONCE):
        some = slice(start, min(start + _SLICES_AT_ONCE, case.stop))
        probabilities = runner(np.array(prepared.images[some]))
        labels = argmax_labels(probabilities)
        expected.add(probabilities, labels)
        masks = prepared.masks[some]
        known = masks != IGNORE
        places = masks[known].astype(np.int64) * len(classes) + labels[known]
        confusion += np.bincount(places, minlength=len(confusion))
    dice = dice_of_cases(torch.from_numpy(confusion.reshape(len(classes), len(classes))))
    return dict(zip(classes[1:], dice.tolist(), strict=True)), expected.by_class(classes)
