"""Validation during training: Dice on the prepared grid, fast enough to do often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maag.config.schema import DataConfig
from maag.data.prepared import PreparedData
from maag.errors import SplitError
from maag.labels import IGNORE
from maag.models.segmentor import Segmentor

_SLICES_AT_ONCE = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationDice:
    """Dice per foreground class: the mean over cases in which the class stands in mask or prediction."""

    per_class: dict[str, float]
    mean: float
    """Mean over classes, in [0, 1]."""


class Validator:
    """The validation cases on the device, and their Dice with a segmentor.

    Dice of a case is over its whole volume, on the grid that training uses; `maag evaluate` measures at source
    resolution.
    """

    def __init__(
        self, prepared: PreparedData, patients: tuple[str, ...], config: DataConfig, device: torch.device
    ) -> None:
        indices = prepared.slices_of(patients, masked=True)
        if len(indices) == 0:
            raise SplitError("no validation patient has masks; add masks for some of them, or change data.split")
        position = np.full(len(prepared.masks), -1)
        position[indices] = np.arange(len(indices))
        self._case_slices = [
            slice(int(position[case.start]), int(position[case.stop - 1]) + 1)
            for case in prepared.cases
            if position[case.start] >= 0
        ]
        self._images = torch.from_numpy(prepared.images[indices]).to(device)
        self._masks = torch.from_numpy(prepared.masks[indices]).to(device)
        self._classes = config.classes

    def dice(self, segmentor: Segmentor) -> ValidationDice:
        """Segment all validation slices in evaluation mode; the segmentor is left in training mode."""
        labels = self._segment(segmentor)
        labels[self._masks == IGNORE] = IGNORE
        scores = torch.stack([self._case_dice(labels[part], self._masks[part]) for part in self._case_slices])
        means = scores.nanmean(dim=0).nan_to_num(0.0).tolist()
        return ValidationDice(per_class=dict(zip(self._classes[1:], means, strict=True)), mean=sum(means) / len(means))

    def _segment(self, segmentor: Segmentor) -> Tensor:
        segmentor.eval()
        with torch.inference_mode():
            parts = [
                segmentor(images.contiguous(memory_format=torch.channels_last)).logits.argmax(dim=1).to(torch.uint8)
                for images in torch.split(self._images, _SLICES_AT_ONCE)
            ]
        segmentor.train()
        return torch.cat(parts)

    def _case_dice(self, labels: Tensor, masks: Tensor) -> Tensor:
        """(num_classes - 1,) Dice of one case's (Z, H, W) labels; NaN where a class is in neither."""
        classes = torch.arange(1, len(self._classes), device=labels.device, dtype=labels.dtype)[:, None]
        predicted, real = labels.flatten()[None] == classes, masks.flatten()[None] == classes
        total = (predicted.sum(dim=1) + real.sum(dim=1)).float()
        return 2 * (predicted & real).sum(dim=1) / torch.where(total == 0, torch.nan, total)
