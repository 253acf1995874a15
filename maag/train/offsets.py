"""Class offsets: what is added to each class's logit so that the validation cases have a higher Dice.

The likeliest class of a pixel is not always the one that makes the Dice highest, and strokes, which lie within
structures, say little about where a border is: walls that were learned from them come out too thick. A few numbers,
found on the validation masks and folded into the bias of the last layer, move borders and make no network slower. They
are taken only as far as patients agree that they gain, for what suits a few best may harm the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maag.labels import IGNORE

LIMIT = 1.0
"""Largest offset, either way."""
_STEP = 0.2
_PASSES = 3
_DOUBT = 2.0
"""Standard errors that a mean gain must exceed."""
FEWEST_PATIENTS = 3
"""Who must agree; of fewer no gain is sure."""
_PIXELS_AT_ONCE = 2**18
"""What of a CT set's hundreds of millions fits in a CPU's cache, with all that is made of it."""
_MOST_PIXELS = 2**25
"""How many are asked about, each 4 bytes a class and 8 more: of a large CT set's all would be tens of gigabytes."""
_HEAD_BIAS = "classify.bias"
"""Of a `Segmentor`'s weights."""


class Verdicts(NamedTuple):
    """What a segmentor says of the pixels of some cases, with only those kept whole that offsets can change.

    Where there are too many of these, one of `stride` is kept and stands for as many. Without offsets counts are exact
    even so.
    """

    settled: Tensor
    """(num_cases, num_classes, num_classes) int64: pixels by case, real class and predicted class, less those that the
    kept ones stand for."""
    logits: Tensor
    """(P, num_classes) float: those of the kept pixels."""
    cells: Tensor
    """(P,) int64: their case * num_classes + real class."""
    stride: int = 1

    def confusion(self, offsets: Tensor) -> Tensor:
        """(num_cases, num_classes, num_classes) int64: all pixels, with (num_classes,) `offsets` on the logits."""
        num_classes = len(offsets)
        places = self.cells * num_classes + (self.logits + offsets).argmax(dim=1)
        kept = torch.bincount(places, minlength=self.settled.numel()).view_as(self.settled)
        return self._of_all(self.settled + self.stride * kept)

    def _of_all(self, counts: Tensor) -> Tensor:
        """A kept pixel that changes its class takes others along, of which there may be fewer."""
        return counts.clamp_min(0) if self.stride > 1 else counts

    def confusions(self, candidates: Tensor) -> Tensor:
        """(M, num_cases, num_classes, num_classes) int64: the `confusion` with each of (M, num_classes) offsets."""
        varied = (candidates != candidates[0]).any(dim=0).nonzero()
        if len(varied) != 1:
            return torch.stack([self.confusion(offsets) for offsets in candidates])
        # In the search one class alone varies, so that the best of the others is the same in all rows, and a pixel
        # that has the class with one offset has it with every larger one: a pass over the pixels tells of all rows.
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
        return self._of_all(found[..., order.argsort()].movedim(-1, 0))


def _best_but(value: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of (num_classes, P) scores but that of class `value`, and whose it is, the first of equal ones."""
    best, other = torch.full_like(scores[0], -torch.inf), torch.zeros_like(scores[0], dtype=torch.int64)
    for label, score in enumerate(scores):
        if label != value:
            other = torch.where(score > best, label, other)
            best = torch.maximum(best, score)
    return best, other


def no_verdicts(num_cases: int, num_classes: int, device: torch.device) -> Verdicts:
    """Those of a worker without slices."""
    settled = torch.zeros(num_cases, num_classes, num_classes, dtype=torch.int64, device=device)
    return Verdicts(settled, torch.empty(0, num_classes, device=device), settled.new_empty(0))


def stride_of(num_pixels: int) -> int:
    """Of how many undecided pixels one is asked about, where all workers' cases have `num_pixels` in all.

    Odd, as widths of images seldom are: else whole columns would be left out.
    """
    stride = -(-num_pixels // _MOST_PIXELS)
    return stride if stride == 1 else stride | 1


def verdicts(logits: Tensor, masks: Tensor, cases: Tensor, num_cases: int, limit: float, stride: int = 1) -> Verdicts:
    """Of (N, num_classes, H, W) logits of slices.

    Args:
        logits: (N, num_classes, H, W) float.
        masks: (N, H, W) uint8; pixels that are IGNORE do not count.
        cases: (N,) int64, the case of each slice, in [0, num_cases).
        num_cases: number of cases.
        limit: largest offset that may be asked about; with 0 all pixels are settled.
        stride: see `stride_of`.
    """
    num_classes = logits.shape[1]
    best, labels = logits.max(dim=1, keepdim=True)
    known = masks != IGNORE
    cells = cases[:, None, None] * num_classes + masks
    is_open = torch.zeros_like(known)
    if limit:
        second = logits.scatter(1, labels, -torch.inf).amax(dim=1)
        is_open = known & (best[:, 0] - second <= 2 * limit)
    if stride > 1:  # By their place in the slice, so that it matters to nobody who segments which slices.
        place = torch.arange(masks[0].numel(), device=masks.device).view_as(masks[0])
        is_open &= place % stride == 0
    places = cells * num_classes + labels[:, 0]
    all_known, kept = (torch.bincount(places[some], minlength=num_cases * num_classes**2) for some in (known, is_open))
    settled = (all_known - stride * kept).view(num_cases, num_classes, num_classes)
    return Verdicts(settled, logits.movedim(1, -1)[is_open], cells[is_open], stride)


def together(parts: Iterable[Verdicts]) -> Verdicts:
    """Verdicts on slices of the same cases as one; of at least one part.

    They are taken as they come: each has counts of all cases, so that all at once would grow with the square of a set.
    """
    settled: Tensor | None = None
    logits, cells, stride = [], [], 1
    for part in parts:
        settled = part.settled if settled is None else settled + part.settled
        logits.append(part.logits)
        cells.append(part.cells)
        stride = max(stride, part.stride)
    assert settled is not None
    return Verdicts(settled, torch.cat(logits), torch.cat(cells), stride)


def dice_of_cases(confusion: Tensor) -> Tensor:
    """Dice of each foreground class, from counts of pixels.

    Args:
        confusion: (..., num_classes, num_classes) integers.

    Returns:
        (..., num_classes - 1) float32 in [0, 1]; NaN for a class that is in neither.
    """
    common = confusion.diagonal(dim1=-2, dim2=-1)[..., 1:]
    total = (confusion.sum(dim=-1) + confusion.sum(dim=-2))[..., 1:]
    return 2 * common / torch.where(total == 0, torch.nan, total)


def sure_gain(dice: Tensor, before: Tensor, patients: Tensor) -> Tensor:
    """Lower bound of the mean gain over patients: the mean less twice its standard error.

    Args:
        dice: (M, num_cases, num_classes - 1) Dice with M different offsets, NaN where a case lacks a class.
        before: (num_cases, num_classes - 1) without any.
        patients: (num_cases,) int64, the patient of each case, counted from 0.

    Returns:
        (M,); 0 where fewer than three patients tell.
    """
    of_cases = dice.nanmean(dim=-1) - before.nanmean(dim=-1)
    by_patient = of_cases.new_zeros(len(of_cases), int(patients.max()) + 1)
    told = by_patient.index_add(1, patients, (~of_cases.isnan()).to(of_cases.dtype))
    gains = by_patient.index_add(1, patients, of_cases.nan_to_num(0.0)) / told  # NaN for a patient without any
    count = (told > 0).sum(dim=-1)
    mean = gains.nansum(dim=-1) / count
    squares = (gains - mean[:, None]).square().nansum(dim=-1)
    bound = mean - _DOUBT * (squares / (count - 1) / count).sqrt()
    return torch.where(count < FEWEST_PATIENTS, 0.0, bound)


def best_offsets(num_classes: int, gain: Callable[[Tensor], Sequence[float]]) -> Tensor:
    """Search class after class, background's offset being 0, until nothing gains; of equals the smallest.

    Args:
        num_classes: number of classes.
        gain: of (M, num_classes) float32 offsets what each row gains.

    Returns:
        (num_classes,) float32 within ± LIMIT.
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
    """A segmentor's weights that give logits with the `offsets` added; unchanged where there are none."""
    if not offsets:
        return weights
    bias = weights[_HEAD_BIAS]
    return {**weights, _HEAD_BIAS: bias + bias.new_tensor(offsets)}
