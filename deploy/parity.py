"""Whether two runners of one segmentor agree, in numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Parity
from maag.config.schema import DataConfig
from maag.errors import ExportError
from maag.inference import Runner

MAX_DIFFERENCE = 1e-3
"""Of a probability, in fp32: some hundred times what reordered sums make, far below what moves a label."""
MIN_LABEL_AGREEMENT = 0.9999

_SEED = 20200701
_NOISE_BATCHES = (1, 2, 5)  # More than one size, lest the exporter has taken the batch for a constant.


def seeded_inputs(data: DataConfig) -> dict[str, NDArray[np.float32]]:
    """Fixed images (N, C, H, W) float32 by name: normalised intensities of noise, in several batch sizes."""
    random = np.random.default_rng(_SEED)
    return {
        f"noise-{size}": random.standard_normal((size, data.channels, *data.size_px), dtype=np.float32)
        for size in _NOISE_BATCHES
    }


def compare(reference: Runner, candidate: Runner, inputs: Mapping[str, NDArray[np.float32]]) -> tuple[Parity, ...]:
    """Run both on the same images.

    Args:
        reference: what is right by definition.
        candidate: what must agree with it.
        inputs: images (N, C, H, W) float32 by name.

    Raises:
        ExportError: shapes differ, a value is not a number, or a limit of this module is passed; with the numbers.
    """
    rows = []
    for name, images in inputs.items():
        expected, found = reference(images), candidate(images)
        who = f"{candidate.name} against {reference.name} on {name} ({len(images)} slices)"
        if expected.shape != found.shape:
            raise ExportError(f"{who}: shapes {found.shape} and {expected.shape} differ")
        if not (np.isfinite(expected).all() and np.isfinite(found).all()):
            counts = [int((~np.isfinite(values)).sum()) for values in (found, expected)]
            raise ExportError(f"{who}: {counts[0]} and {counts[1]} probabilities are not numbers; nothing was exported")
        row = Parity(
            inputs=name,
            num_slices=len(images),
            reference=reference.name,
            candidate=candidate.name,
            max_difference=float(np.abs(expected - found).max()),
            label_agreement=float((expected.argmax(axis=1) == found.argmax(axis=1)).mean()),
        )
        if row.max_difference > MAX_DIFFERENCE or row.label_agreement < MIN_LABEL_AGREEMENT:
            raise ExportError(
                f"{who}: probabilities differ by up to {row.max_difference:.2e} (limit {MAX_DIFFERENCE:.0e}) and "
                f"{row.label_agreement:.4%} of the labels agree (limit {MIN_LABEL_AGREEMENT:.2%}); nothing was exported"
            )
        rows.append(row)
    return tuple(rows)
