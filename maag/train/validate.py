"""Validation during training: Dice on the training grid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maag.config.data import DataConfig
from maag.data.cache.prepared import PreparedData
from maag.data.slices.store import SliceStore, fits
from maag.errors import SplitError
from maag.inference import evaluation_mode
from maag.models.segmentor import Segmentor
from maag.train.offsets import (
    FEWEST_PATIENTS,
    LIMIT,
    PixelScores,
    best_offsets,
    concatenated,
    dice_of_cases,
    gain_lower_bound,
    no_scores,
    pixel_scores,
    sampling_stride,
)
from maag.train.team import ALONE, Team

_SLICES_AT_ONCE = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationDice:
    """Dice per foreground class: the mean over cases in which the class is in mask or prediction."""

    per_class: dict[str, float]
    """Without classes that are in no case."""
    mean: float
    """Mean over these classes, in [0, 1]; 0 if there are none."""
    offsets: tuple[float, ...] = ()
    """Class offsets on the logits for this Dice, the background's first; () if none were fitted."""


class Validator:
    """Measures a segmentor on the validation cases, or on one worker's part of them.

    The Dice of a case is over its whole volume, on the training grid; `maag evaluate` measures at source resolution.
    With `fit_offsets` the segmentor is measured with class offsets fitted to these patients; see `maag.train.offsets`.
    """

    def __init__(
        self,
        prepared: PreparedData,
        patients: tuple[str, ...],
        config: DataConfig,
        device: torch.device,
        team: Team = ALONE,
        *,
        fit_offsets: bool = False,
    ) -> None:
        members = set(prepared.slices_of(patients, masked=True).tolist())
        if not members:
            raise SplitError("no validation patient has masks; add masks for some of them, or change data.split")
        cases = [case for case in prepared.cases if case.start in members]
        self._num_cases = len(cases)
        own = list(team.shard.of(range(len(cases))))
        indices = [range(cases[number].start, cases[number].stop) for number in own]
        flat = np.array([index for part in indices for index in part], dtype=np.int64)
        resident = fits(len(flat) * (prepared.images[0].nbytes + prepared.masks[0].nbytes), device)
        # Arrays that do not fit on the device are read from the memory map; a copy would only take memory.
        self._slices = np.arange(len(flat)) if resident else flat
        self._images, self._masks = (
            SliceStore(array[flat] if resident else array, device, resident=resident)
            for array in (prepared.images, prepared.masks)
        )
        numbers = np.repeat(np.array(own, np.int64), [len(part) for part in indices])
        self._cases = torch.from_numpy(numbers).to(device)
        self._patients = torch.from_numpy(np.unique([case.patient_id for case in cases], return_inverse=True)[1])
        self._classes = config.classes
        self._team = team
        self._fit_offsets = fit_offsets
        # With fewer patients no gain is significant.
        self._search = fit_offsets and int(self._patients.max()) + 1 >= FEWEST_PATIENTS
        self._stride = sampling_stride(sum(case.stop - case.start for case in cases) * prepared.masks[0].size)

    def dice(self, segmentor: Segmentor) -> ValidationDice:
        """Segment all validation slices in evaluation mode; the segmentor's own mode is restored.

        All workers must call it at once; each gets the same result, whatever their number.
        """
        own = self._segment(segmentor)
        offsets = torch.zeros(len(self._classes))
        dice = self._dice_of_cases(own, offsets[None])[0]
        if self._search:
            offsets = best_offsets(
                len(self._classes),
                lambda rows: gain_lower_bound(self._dice_of_cases(own, rows), dice, self._patients).tolist(),
            )
            dice = self._dice_of_cases(own, offsets[None])[0]
        means = zip(self._classes[1:], dice.nanmean(dim=0).tolist(), strict=True)
        per_class = {name: mean for name, mean in means if not math.isnan(mean)}
        return ValidationDice(
            per_class=per_class,
            mean=statistics.fmean(per_class.values()) if per_class else 0.0,
            offsets=tuple(round(value, 3) for value in offsets.tolist()) if self._fit_offsets else (),
        )

    def _segment(self, segmentor: Segmentor) -> PixelScores:
        with evaluation_mode(segmentor), torch.inference_mode():
            return concatenated(self._pixel_scores(segmentor))

    def _pixel_scores(self, segmentor: Segmentor) -> Iterator[PixelScores]:
        """Scores of this worker's slices, in batches; the first part is empty, because a worker may have no slice."""
        limit = LIMIT if self._search else 0.0
        yield no_scores(self._num_cases, len(self._classes), self._cases.device)
        for start in range(0, len(self._slices), _SLICES_AT_ONCE):
            some = slice(start, start + _SLICES_AT_ONCE)
            images, masks = (store.gather(self._slices[some]) for store in (self._images, self._masks))
            logits = segmentor(images.contiguous(memory_format=torch.channels_last)).logits
            yield pixel_scores(logits, masks, self._cases[some], self._num_cases, limit, self._stride)

    def _dice_of_cases(self, own: PixelScores, candidates: Tensor) -> Tensor:
        """(M, num_cases, num_classes - 1): the Dice of all workers' cases with each of (M, num_classes) offsets."""
        confusions = own.confusions(candidates.to(own.logits))
        # Each case is 0 on all workers but one, so this sum is exact.
        return dice_of_cases(self._team.sum(confusions)).cpu()
