"""Class offsets: constants added to each class's logits that raise the Dice of the validation cases.

The most probable class of a pixel does not always maximise the Dice. Scribbles lie within structures and say little
about borders, so walls learned from them come out too thick. Offsets fitted to the validation masks and folded into
the bias of the last layer move the borders at no cost in speed. To avoid overfitting, a gain must be significant over
patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maag.labels import IGNORE

LIMIT = 1.0
"""Largest absolute offset."""
_STEP = 0.2
_PASSES = 3
_NUM_STANDARD_ERRORS = 2.0
"""The search maximises the mean gain minus this many standard errors."""
FEWEST_PATIENTS = 3
"""With fewer no gain is significant."""
_PIXELS_AT_ONCE = 2**18
"""Processed at a time, so that intermediate results fit in a CPU's cache."""
_MOST_PIXELS = 2**25
"""Kept at most, at 4 bytes per class and 8 more: all pixels of a large CT set would take tens of gigabytes."""
_HEAD_BIAS = "classify.bias"
"""Among a `Segmentor`'s weights."""


class PixelScores(NamedTuple):
    """A segmentor's predictions for some cases: counts of settled pixels, and logits of those that offsets can change.

    If these are too many, one in `stride` is kept and stands for that many pixels. Counts without offsets are exact
    all the same.
    """

    settled: Tensor
    """(num_cases, num_classes, num_classes) int64: pixels by case, real class and predicted class, minus those that the
    kept pixels stand for."""
    logits: Tensor
    """(P, num_classes) float: of the kept pixels."""
    cells: Tensor
    """(P,) int64: case * num_classes + real class of the kept pixels."""
    stride: int = 1

    def confusion(self, offsets: Tensor) -> Tensor:
        """(num_cases, num_classes, num_classes) int64: the confusion matrices with (num_classes,) `offsets`."""
        num_classes = len(offsets)
        places = self.cells * num_classes + (self.logits + offsets).argmax(dim=1)
        kept = torch.bincount(places, minlength=self.settled.numel()).view_as(self.settled)
        return self._not_negative(self.settled + self.stride * kept)

    def _not_negative(self, counts: Tensor) -> Tensor:
        """A kept pixel that changes its class moves `stride` pixels, and there may be fewer."""
        return counts.clamp_min(0) if self.stride > 1 else counts

    def confusions(self, candidates: Tensor) -> Tensor:
        """(M, num_cases, num_classes, num_classes) int64: the `confusion` with each of (M, num_classes) offsets."""
        varied = (candidates != candidates[0]).any(dim=0).nonzero()
        if len(varied) != 1:
            return torch.stack([self.confusion(offsets) for offsets in candidates])
        # The search varies one class at a time. Then the best other class of a pixel is the same in all rows, and a
        # pixel that has the class with one offset has it with every larger one: one pass over the pixels is enough.
        value, (rows, num_classes) = int(varied), candidates.shape
        tried, order = candidates[:, value].sort()
        counts = self.settled.new_zeros(self.settled.numel() * (rows + 1))  # of kept pixels
        for start in range(0, len(self.cells), _PIXELS_AT_ONCE):
            some = slice(start, start + _PIXELS_AT_ONCE)
            best, other = _best_but(value, (self.logits[some] + candidates[0]).T.contiguous())
            own = self.logits[some, value]
            lost = torch.zeros_like(other)
            for offset in tried:
                lost += ~((own + offset > best) | ((own + offset == best) & (other > value)))
            places = (self.cells[some] * num_classes + other) * (rows + 1) + lost
            counts += torch.bincount(places, minlength=len(counts))
        by_lost = self.stride * counts.view(*self.settled.shape, rows + 1)
        won = by_lost.cumsum(dim=-1)[..., :-1]
        found = self.settled[..., None] + by_lost.sum(dim=-1, keepdim=True) - won
        found[..., value, :] += won.sum(dim=-2)
        return self._not_negative(found[..., order.argsort()].movedim(-1, 0))


def _best_but(value: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the (num_classes, P) scores except class `value`'s, and its class; ties go to the lowest class."""
    best, other = torch.full_like(scores[0], -torch.inf), torch.zeros_like(scores[0], dtype=torch.int64)
    for label, score in enumerate(scores):
        if label != value:
            other = torch.where(score > best, label, other)
            best = torch.maximum(best, score)
    return best, other


def no_scores(num_cases: int, num_classes: int, device: torch.device) -> PixelScores:
    """The scores of a worker without slices."""
    settled = torch.zeros(num_cases, num_classes, num_classes, dtype=torch.int64, device=device)
    return PixelScores(settled, torch.empty(0, num_classes, device=device), settled.new_empty(0))


def sampling_stride(num_pixels: int) -> int:
    """Sampling stride of the undecided pixels, if the cases of all workers have `num_pixels`.

    It is odd, as image widths seldom are: otherwise whole columns would be left out.
    """
    stride = -(-num_pixels // _MOST_PIXELS)
    return stride if stride == 1 else stride | 1


def pixel_scores(
    logits: Tensor, masks: Tensor, cases: Tensor, num_cases: int, limit: float, stride: int = 1
) -> PixelScores:
    """Reduce the logits of slices to counts and undecided pixels.

    Args:
        logits: (N, num_classes, H, W) float.
        masks: (N, H, W) uint8; IGNORE pixels do not count.
        cases: (N,) int64, the case of each slice, in [0, num_cases).
        num_cases: number of cases.
        limit: largest absolute offset that will be tried; with 0 all pixels are settled.
        stride: see `sampling_stride`.
    """
    num_classes = logits.shape[1]
    best, labels = logits.max(dim=1, keepdim=True)
    known = masks != IGNORE
    cells = cases[:, None, None] * num_classes + masks
    is_open = torch.zeros_like(known)
    if limit:
        second = logits.scatter(1, labels, -torch.inf).amax(dim=1)
        is_open = known & (best[:, 0] - second <= 2 * limit)
    if stride > 1:  # By position in the slice, so that the distribution of slices over workers does not matter.
        place = torch.arange(masks[0].numel(), device=masks.device).view_as(masks[0])
        is_open &= place % stride == 0
    places = cells * num_classes + labels[:, 0]
    all_known, kept = (torch.bincount(places[some], minlength=num_cases * num_classes**2) for some in (known, is_open))
    settled = (all_known - stride * kept).view(num_cases, num_classes, num_classes)
    return PixelScores(settled, logits.movedim(1, -1)[is_open], cells[is_open], stride)


def concatenated(parts: Iterable[PixelScores]) -> PixelScores:
    """The scores of several parts of the same cases as one; needs at least one part.

    Parts are consumed one by one: each has counts of all cases, so all at once would grow with the square of the set.
    """
    settled: Tensor | None = None
    logits, cells, stride = [], [], 1
    for part in parts:
        settled = part.settled if settled is None else settled + part.settled
        logits.append(part.logits)
        cells.append(part.cells)
        stride = max(stride, part.stride)
    assert settled is not None
    return PixelScores(settled, torch.cat(logits), torch.cat(cells), stride)


def dice_of_cases(confusion: Tensor) -> Tensor:
    """Dice of each foreground class from confusion matrices.

    Args:
        confusion: (..., num_classes, num_classes) integers.

    Returns:
        (..., num_classes - 1) float32 in [0, 1]; NaN for a class that is absent from both.
    """
    intersection = confusion.diagonal(dim1=-2, dim2=-1)[..., 1:]
    total = (confusion.sum(dim=-1) + confusion.sum(dim=-2))[..., 1:]
    return 2 * intersection / torch.where(total == 0, torch.nan, total)


def gain_lower_bound(dice: Tensor, before: Tensor, patients: Tensor) -> Tensor:
    """Lower bound of the mean gain over patients: the mean minus two standard errors.

    Args:
        dice: (M, num_cases, num_classes - 1) Dice with M different offsets, NaN where a case lacks a class.
        before: (num_cases, num_classes - 1) Dice without offsets.
        patients: (num_cases,) int64, the patient of each case, counted from 0.

    Returns:
        (M,); 0 with fewer than three patients that have a Dice.
    """
    of_cases = dice.nanmean(dim=-1) - before.nanmean(dim=-1)
    by_patient = of_cases.new_zeros(len(of_cases), int(patients.max()) + 1)
    num_cases = by_patient.index_add(1, patients, (~of_cases.isnan()).to(of_cases.dtype))
    gains = by_patient.index_add(1, patients, of_cases.nan_to_num(0.0)) / num_cases  # NaN for a patient without any
    count = (num_cases > 0).sum(dim=-1)
    mean = gains.nansum(dim=-1) / count
    squares = (gains - mean[:, None]).square().nansum(dim=-1)
    bound = mean - _NUM_STANDARD_ERRORS * (squares / (count - 1) / count).sqrt()
    return torch.where(count < FEWEST_PATIENTS, 0.0, bound)


def best_offsets(num_classes: int, gain: Callable[[Tensor], Sequence[float]]) -> Tensor:
    """Coordinate search over the foreground classes until nothing gains; ties go to the smallest offset.

    Args:
        num_classes: number of classes.
        gain: maps (M, num_classes) float32 offsets to the gain of each row.

    Returns:
        (num_classes,) float32 within ± LIMIT; the background's is 0.
    """
    count = round(LIMIT / _STEP)
    steps = torch.tensor(sorted((number * _STEP for number in range(-count, count + 1)), key=abs))
    offsets = torch.zeros(num_classes)
    for _ in range(_PASSES):
        before = offsets
        for value in range(1, num_classes):
            candidates = offsets.repeat(len(steps), 1)
            candidates[:, value] = steps
            gains = gain(candidates)
            offsets = candidates[max(range(len(gains)), key=gains.__getitem__)]
        if torch.equal(offsets, before):
            break
    return offsets


def with_offsets(weights: dict[str, Tensor], offsets: Sequence[float]) -> dict[str, Tensor]:
    """A segmentor's weights with the class `offsets` added to the bias of its last layer; unchanged without offsets."""
    if not offsets:
        return weights
    bias = weights[_HEAD_BIAS]
    return {**weights, _HEAD_BIAS: bias + bias.new_tensor(offsets)}
