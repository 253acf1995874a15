"""Validation during training: Dice on the prepared grid, fast enough to do often."""

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
    Verdicts,
    best_offsets,
    dice_of_cases,
    no_verdicts,
    stride_of,
    sure_gain,
    together,
    verdicts,
)
from maag.train.team import ALONE, Team

_SLICES_AT_ONCE = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationDice:
    """Dice per foreground class: the mean over cases in which the class stands in mask or prediction."""

    per_class: dict[str, float]
    """Without classes that stand in no case."""
    mean: float
    """Mean over these classes, in [0, 1]; 0 without any."""
    offsets: tuple[float, ...] = ()
    """Added to the classes' logits, background's first, for this Dice; () where none were looked for."""


class Validator:
    """The validation cases, or one worker's part of them, on the device, and their Dice with a segmentor.

    Dice of a case is over its whole volume, on the grid that training uses; `maag evaluate` measures at source
    resolution. With `fit_offsets` the segmentor is measured with the class offsets that surely gain on these patients.
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
        # Where they do not stay there, copies would only fill the memory that the page cache reads them from.
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
        # Of fewer patients no offset would be sure.
        self._search = fit_offsets and int(self._patients.max()) + 1 >= FEWEST_PATIENTS
        self._stride = stride_of(sum(case.stop - case.start for case in cases) * prepared.masks[0].size)

    def dice(self, segmentor: Segmentor) -> ValidationDice:
        """Segment all validation slices in evaluation mode; the segmentor is left in the mode it had.

        All workers must call it at once; each gets the same, whatever their number.
        """
        own = self._segment(segmentor)
        offsets = torch.zeros(len(self._classes))
        dice = self._dice_of_cases(own, offsets[None])[0]
        if self._search:
            offsets = best_offsets(
                len(self._classes),
                lambda rows: sure_gain(self._dice_of_cases(own, rows), dice, self._patients).tolist(),
            )
            dice = self._dice_of_cases(own, offsets[None])[0]
        means = zip(self._classes[1:], dice.nanmean(dim=0).tolist(), strict=True)
        per_class = {name: mean for name, mean in means if not math.isnan(mean)}
        return ValidationDice(
            per_class=per_class,
            mean=statistics.fmean(per_class.values()) if per_class else 0.0,
            offsets=tuple(round(value, 3) for value in offsets.tolist()) if self._fit_offsets else (),
        )

    def _segment(self, segmentor: Segmentor) -> Verdicts:
        with evaluation_mode(segmentor), torch.inference_mode():
            return together(self._verdicts(segmentor))

    def _verdicts(self, segmentor: Segmentor) -> Iterator[Verdicts]:
        """Those on the own slices, some at a time; at first none, as a worker may have no slice."""
        limit = LIMIT if self._search else 0.0
        yield no_verdicts(self._num_cases, len(self._classes), self._cases.device)
        for start in range(0, len(self._slices), _SLICES_AT_ONCE):
            some = slice(start, start + _SLICES_AT_ONCE)
            images, masks = (store.gather(self._slices[some]) for store in (self._images, self._masks))
            logits = segmentor(images.contiguous(memory_format=torch.channels_last)).logits
            yield verdicts(logits, masks, self._cases[some], self._num_cases, limit, self._stride)

    def _dice_of_cases(self, own: Verdicts, candidates: Tensor) -> Tensor:
        """(M, num_cases, num_classes - 1): the Dice of all workers' cases with each of (M, num_classes) offsets."""
        confusions = own.confusions(candidates.to(own.logits))
        # Each case is nought but on one worker, so this sum is exact.
        return dice_of_cases(self._team.sum(confusions)).cpu()
