"""Measure whether two runners of one segmentor agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deploy.artifact.engine import Precision
from deploy.artifact.manifest import Parity
from deploy.artifact.tensors import LABELS, PROBABILITIES
from deploy.runners.seeded_inputs import BLOBS, NOISE, PHANTOMS
from maag.errors import ExportError
from maag.inference import Runner


class Limit(NamedTuple):
    """Tolerance of an export's difference from PyTorch."""

    max_difference: float
    """Of a probability."""
    min_label_agreement: float
    min_dice: float
    """Of the labels, if any is foreground; and of each class, over pixels where the reference is confident."""


LIMITS: Mapping[Precision, Limit] = {
    # Some hundred times the effect of reordered sums, far below what changes a label.
    "fp32": Limit(1e-3, 0.9999, 0.999),
    "fp16": Limit(0.1, 0.999, 0.99),
    # A probability near one half may change a lot; labels are what matters.
    "int8": Limit(1.0, 0.98, 0.95),
}

SURE = 0.9
"""Labels with at least this probability count on any image; lower precision changes labels that are about as likely."""
FEWEST_PIXELS = 50
"""Pixels of a class for its Dice to be meaningful."""

AT_EXPORT = "nothing was exported; choose another --precision, or --fall-back for fp32"
"""What to do if an export disagrees."""

_TIE = 1e-3
"""Probabilities closer than this may be equal in half precision, in which labels are computed."""


@runtime_checkable
class HasOutputs(Protocol):
    """A runner that returns all outputs of the graph."""

    def outputs(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """By name: probabilities (N, num_classes, H, W), labels (N, H, W), and gates (N, 1, H / 2**level, …)."""


class _Measured(NamedTuple):
    row: Parity
    sure: NDArray[np.int64]
    """(3, num_classes): pixels where the reference is confident, by its label, by the candidate's, and by both."""
    wrong_labels: int
    """Pixels whose label output of the candidate is not the class of its largest probability."""
    gate_difference: float
    """Largest absolute difference of a gate, in [0, 1]; infinity if it is not finite or has another shape."""


def compare(
    reference: Runner,
    candidate: Runner,
    inputs: Mapping[str, NDArray[np.float32]],
    precision: Precision = "fp32",
    *,
    way_out: str = AT_EXPORT,
) -> tuple[Parity, ...]:
    """Run both on the same images and compare all common outputs, and the candidate's labels with its probabilities.

    Args:
        reference: correct by definition.
        candidate: must agree with the reference.
        inputs: images (N, C, H, W) float32 by name. For synthetic ones, only the difference and the labels where the
            reference is confident count: on images unlike its training data the largest probabilities are often close
            to each other, and which is the largest is meaningless.
        precision: the candidate's, which selects the limits.
        way_out: a clause for the error message: what happens to the candidate, and what to do.

    Raises:
        ExportError: shapes differ, a value is not finite, or a limit is exceeded; the message has all numbers.
    """
    limit = LIMITS[precision]
    measured = [_measure(reference, candidate, name, images, way_out) for name, images in inputs.items()]
    rows = tuple(item.row for item in measured)
    synthetic = (PHANTOMS, BLOBS) if precision == "fp32" else (NOISE, PHANTOMS, BLOBS)
    for row in rows:
        if _is_beyond(row, limit, labels_count=not row.inputs.startswith(synthetic)):
            raise ExportError(f"{_verdict(row, limit)}; {way_out}.{_table(rows)}")
    for item in measured:
        if wrong := _wrong_beside(item, limit):
            who = _who(candidate.name, reference.name, item.row.inputs, item.row.num_slices)
            raise ExportError(f"{who}: {wrong}; {way_out}.{_table(rows)}")
    if lost := _lost_class(np.sum([item.sure for item in measured], axis=0), limit):
        raise ExportError(f"{candidate.name} against {reference.name}: {lost}; {way_out}.{_table(rows)}")
    return rows


def weakness(rows: Sequence[Parity]) -> str | None:
    """A sentence if parity proves little; None if not, or if foreground was not counted."""
    counts = [row.foreground_pixels for row in rows]
    if not counts or None in counts or sum(filter(None, counts)) >= FEWEST_PIXELS:
        return None
    return (
        "PyTorch labels almost no foreground in the images that parity was measured on, so parity proves little; add "
        "images of the data set with --data"
    )


def _measure(reference: Runner, candidate: Runner, name: str, images: NDArray[np.float32], way_out: str) -> _Measured:
    expected_outputs, found_outputs = _outputs_of(reference, images), _outputs_of(candidate, images)
    expected, found = expected_outputs[PROBABILITIES], found_outputs[PROBABILITIES]
    who = _who(candidate.name, reference.name, name, len(images))
    if expected.shape != found.shape:
        raise ExportError(f"{who}: shapes {found.shape} and {expected.shape} differ; {way_out}")
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        counts = [int((~np.isfinite(values)).sum()) for values in (found, expected)]
        raise ExportError(f"{who}: {counts[0]} and {counts[1]} probabilities are not finite; {way_out}")
    expected_labels, found_labels = expected.argmax(axis=1), found.argmax(axis=1)
    row = Parity(
        inputs=name,
        num_slices=len(images),
        reference=reference.name,
        candidate=candidate.name,
        max_difference=float(np.abs(expected - found).max()),
        label_agreement=float((expected_labels == found_labels).mean()),
        dice=_mean_dice(_tally(expected_labels, found_labels, expected.shape[1])),
        foreground_pixels=int(np.count_nonzero(expected_labels)),
    )
    sure = expected.max(axis=1) >= SURE
    gates = (expected_outputs.keys() & found_outputs.keys()) - {PROBABILITIES, LABELS}
    return _Measured(
        row,
        _tally(expected_labels[sure], found_labels[sure], expected.shape[1]),
        _wrong_labels(found, found_outputs[LABELS]) if LABELS in found_outputs else 0,
        max((_gate_difference(expected_outputs[gate], found_outputs[gate]) for gate in gates), default=0.0),
    )


def _outputs_of(runner: Runner, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return runner.outputs(images) if isinstance(runner, HasOutputs) else {PROBABILITIES: runner(images)}


def _wrong_labels(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> int:
    known = np.minimum(labels, probabilities.shape[1] - 1)
    own = np.take_along_axis(probabilities, known[:, None].astype(np.int64), axis=1)[:, 0]
    return int(np.count_nonzero((known != labels) | (own < probabilities.max(axis=1) - _TIE)))


def _gate_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(expected - found).max())


def _wrong_beside(item: _Measured, limit: Limit) -> str | None:
    """A clause on what is wrong with labels or gates, if anything."""
    if item.wrong_labels:
        return f"{item.wrong_labels} labels are not the class of the largest probability"
    if item.gate_difference > limit.max_difference:
        return f"gates differ by up to {item.gate_difference:.2e} (limit {limit.max_difference:.0e})"
    return None


def _is_beyond(row: Parity, limit: Limit, *, labels_count: bool) -> bool:
    dice = 1.0 if row.dice is None else row.dice
    labels_differ = row.label_agreement < limit.min_label_agreement or dice < limit.min_dice
    return row.max_difference > limit.max_difference or (labels_count and labels_differ)


def _lost_class(sure: NDArray[np.int64], limit: Limit) -> str | None:
    """A clause on the first class that the candidate labels differently where the reference is confident, if any."""
    for label, (expected, found, both) in enumerate(sure.T):
        dice = 2 * both / max(1, expected + found)
        if expected >= FEWEST_PIXELS and dice < limit.min_dice:
            return (
                f"of {expected} pixels that are confidently class {label}, {both} are labelled so, "
                f"a Dice of {dice:.4f} (limit {limit.min_dice})"
            )
    return None


def _verdict(worst: Parity, limit: Limit) -> str:
    return (
        f"{_who(worst.candidate, worst.reference, worst.inputs, worst.num_slices)}: probabilities differ by up to "
        f"{worst.max_difference:.2e} (limit {limit.max_difference:.0e}), {worst.label_agreement:.4%} of the labels "
        f"agree (limit {limit.min_label_agreement:.2%}), their Dice is {_text(worst.dice)} (limit {limit.min_dice})"
    )


def _table(rows: Sequence[Parity]) -> str:
    return " All measurements:" + "".join(
        f"\n  {row.inputs} ({row.num_slices} slices): {row.candidate} differs by {row.max_difference:.1e}, "
        f"{row.label_agreement:.3%} same labels, Dice {_text(row.dice)}"
        for row in rows
    )


def _who(candidate: str, reference: str, inputs: str, num_slices: int) -> str:
    return f"{candidate} against {reference} on {inputs} ({num_slices} slices)"


def _text(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.4f}"


def _tally(expected: NDArray[np.int64], found: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """(3, num_classes): pixels of each label in `expected`, in `found`, and in both."""
    parts = (expected.ravel(), found.ravel(), expected[expected == found])
    return np.stack([np.bincount(part, minlength=num_classes) for part in parts])


def _mean_dice(tally: NDArray[np.int64]) -> float | None:
    """Mean over the foreground classes that are in either."""
    scores = [2 * both / (one + other) for one, other, both in tally.T[1:] if one + other]
    return float(np.mean(scores)) if scores else None
