"""Whether two runners of one segmentor agree, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Parity
from deploy.engine import Precision
from deploy.tensors import SIZE_MULTIPLE
from maag.config.schema import DataConfig
from maag.errors import ExportError
from maag.inference import Runner


class Limit(NamedTuple):
    """How far an export may be from PyTorch."""

    max_difference: float
    """Of a probability."""
    min_label_agreement: float
    min_dice: float
    """Of the labels, where there are foreground labels."""


LIMITS: Mapping[Precision, Limit] = {
    # Some hundred times what reordered sums make, far below what moves a label.
    "fp32": Limit(1e-3, 0.9999, 0.999),
    "fp16": Limit(0.1, 0.999, 0.99),
    # A probability near one half may move far; what counts are labels.
    "int8": Limit(1.0, 0.98, 0.95),
}

NOISE = "noise"
_SEED = 20200701
_NOISE_BATCHES = (1, 2, 5)  # More than one size, lest the exporter has taken the batch for a constant.


def seeded_inputs(data: DataConfig, *, dynamic_size: bool = False) -> dict[str, NDArray[np.float32]]:
    """Fixed images (N, C, H, W) float32 by name: normalised intensities of noise, in several batch sizes, and where the
    size is free in a second size."""
    random = np.random.default_rng(_SEED)
    inputs = {
        f"{NOISE}-{size}": random.standard_normal((size, data.channels, *data.size_px), dtype=np.float32)
        for size in _NOISE_BATCHES
    }
    if dynamic_size:
        height, width = (side + SIZE_MULTIPLE for side in data.size_px)
        shape = (2, data.channels, height, width)
        inputs[f"{NOISE}-2-{height}x{width}"] = random.standard_normal(shape, dtype=np.float32)
    return inputs


def compare(
    reference: Runner,
    candidate: Runner,
    inputs: Mapping[str, NDArray[np.float32]],
    precision: Precision = "fp32",
) -> tuple[Parity, ...]:
    """Run both on the same images.

    Args:
        reference: what is right by definition.
        candidate: what must agree with it.
        inputs: images (N, C, H, W) float32 by name. What is named noise is held to the difference alone where precision
            is reduced: on it the largest probabilities are close to each other, and labels mean nothing.
        precision: the candidate's, which decides the limits.

    Raises:
        ExportError: shapes differ, a value is not a number, or a limit of this module is passed; with all numbers.
    """
    rows = [_measure(reference, candidate, name, images) for name, images in inputs.items()]
    limit = LIMITS[precision]
    for row in rows:
        if _is_beyond(row, limit, labels_count=precision == "fp32" or not row.inputs.startswith(NOISE)):
            raise ExportError(_verdict(row, limit, rows))
    return tuple(rows)


def _measure(reference: Runner, candidate: Runner, name: str, images: NDArray[np.float32]) -> Parity:
    expected, found = reference(images), candidate(images)
    who = _who(candidate.name, reference.name, name, len(images))
    if expected.shape != found.shape:
        raise ExportError(f"{who}: shapes {found.shape} and {expected.shape} differ")
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        counts = [int((~np.isfinite(values)).sum()) for values in (found, expected)]
        raise ExportError(f"{who}: {counts[0]} and {counts[1]} probabilities are not numbers; nothing was exported")
    expected_labels, found_labels = expected.argmax(axis=1), found.argmax(axis=1)
    return Parity(
        inputs=name,
        num_slices=len(images),
        reference=reference.name,
        candidate=candidate.name,
        max_difference=float(np.abs(expected - found).max()),
        label_agreement=float((expected_labels == found_labels).mean()),
        dice=_dice(expected_labels, found_labels, expected.shape[1]),
    )


def _is_beyond(row: Parity, limit: Limit, *, labels_count: bool) -> bool:
    dice = 1.0 if row.dice is None else row.dice
    labels_differ = row.label_agreement < limit.min_label_agreement or dice < limit.min_dice
    return row.max_difference > limit.max_difference or (labels_count and labels_differ)


def _verdict(worst: Parity, limit: Limit, rows: Sequence[Parity]) -> str:
    """The first row that is beyond a limit in a sentence, then all of them."""
    table = "".join(
        f"\n  {row.inputs} ({row.num_slices} slices): {row.candidate} differs by {row.max_difference:.1e}, "
        f"{row.label_agreement:.3%} same labels, Dice {_text(row.dice)}"
        for row in rows
    )
    return (
        f"{_who(worst.candidate, worst.reference, worst.inputs, worst.num_slices)}: probabilities differ by up to "
        f"{worst.max_difference:.2e} (limit {limit.max_difference:.0e}), {worst.label_agreement:.4%} of the labels "
        f"agree (limit {limit.min_label_agreement:.2%}), their Dice is {_text(worst.dice)} (limit {limit.min_dice}); "
        f"nothing was exported; choose another --precision, or --fall-back for fp32. All that was measured:{table}"
    )


def _who(candidate: str, reference: str, inputs: str, num_slices: int) -> str:
    return f"{candidate} against {reference} on {inputs} ({num_slices} slices)"


def _text(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.4f}"


def _dice(expected: NDArray[np.int64], found: NDArray[np.int64], num_classes: int) -> float | None:
    """Mean over the foreground classes that stand in either."""
    scores = []
    for label in range(1, num_classes):
        one, other = expected == label, found == label
        if total := int(one.sum() + other.sum()):
            scores.append(2 * int((one & other).sum()) / total)
    return float(np.mean(scores)) if scores else None
