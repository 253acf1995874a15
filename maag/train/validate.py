"""Validation during training: Dice on the prepared grid, fast enough to do often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maag.config.schema import DataConfig
from maag.data.prepared import PreparedData
from maag.errors import SplitError
from maag.inference import evaluation_mode
from maag.labels import IGNORE
from maag.models.segmentor import Segmentor
from maag.train.team import ALONE, Team

_SLICES_AT_ONCE = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationDice:
    """Dice per foreground class: the mean over cases in which the class stands in mask or prediction."""

    per_class: dict[str, float]
    mean: float
    """Mean over classes, in [0, 1]."""


class Validator:
    """The validation cases, or one worker's part of them, on the device, and their Dice with a segmentor.

    Dice of a case is over its whole volume, on the grid that training uses; `maag evaluate` measures at source
    resolution.
    """

    def __init__(
        self,
        prepared: PreparedData,
        patients: tuple[str, ...],
        config: DataConfig,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        members = set(prepared.slices_of(patients, masked=True).tolist())
        if not members:
            raise SplitError("no validation patient has masks; add masks for some of them, or change data.split")
        cases = [case for case in prepared.cases if case.start in members]
        self._num_cases = len(cases)
        self._own = team.shard.of(range(len(cases)))
        indices = [range(cases[number].start, cases[number].stop) for number in self._own]
        self._slices_per_case = [len(part) for part in indices]
        flat = np.array([index for part in indices for index in part], dtype=np.int64)
        self._images = torch.from_numpy(prepared.images[flat]).to(device)
        self._masks = torch.from_numpy(prepared.masks[flat]).to(device)
        self._classes = config.classes
        self._team = team

    def dice(self, segmentor: Segmentor) -> ValidationDice:
        """Segment all validation slices in evaluation mode; the segmentor is left in the mode it had.

        All workers must call it at once; each gets the same, whatever their number.
        """
        scores = torch.zeros(self._num_cases, len(self._classes) - 1, device=self._images.device)
        if self._slices_per_case:
            labels = self._segment(segmentor)
            labels[self._masks == IGNORE] = IGNORE
            by_case = (torch.split(maps, self._slices_per_case) for maps in (labels, self._masks))
            scores[list(self._own)] = torch.stack([self._case_dice(*maps) for maps in zip(*by_case, strict=True)])
        # Each row is nought but on one worker, so this sum is exact.
        means = self._team.sum(scores).nanmean(dim=0).nan_to_num(0.0).tolist()
        return ValidationDice(per_class=dict(zip(self._classes[1:], means, strict=True)), mean=sum(means) / len(means))

    def _segment(self, segmentor: Segmentor) -> Tensor:
        with evaluation_mode(segmentor), torch.inference_mode():
            parts = [
                segmentor(images.contiguous(memory_format=torch.channels_last)).logits.argmax(dim=1).to(torch.uint8)
                for images in torch.split(self._images, _SLICES_AT_ONCE)
            ]
        return torch.cat(parts)

    def _case_dice(self, labels: Tensor, masks: Tensor) -> Tensor:
        """(num_classes - 1,) Dice of one case's (Z, H, W) labels; NaN where a class is in neither."""
        classes = torch.arange(1, len(self._classes), device=labels.device, dtype=labels.dtype)[:, None]
        predicted, real = labels.flatten()[None] == classes, masks.flatten()[None] == classes
        total = (predicted.sum(dim=1) + real.sum(dim=1)).float()
        return 2 * (predicted & real).sum(dim=1) / torch.where(total == 0, torch.nan, total)
