"""The Dice of a perfect network: masks resampled to the training grid, and back as predictions are.

    python benchmarks/ceiling.py --data ACDC_DIR

Mean Dice over all volumes at source resolution, for the grids of the presets; with maag's nearest-neighbour rule (the
pixel that contains the centre), and with that of OpenCV's and torch's `nearest` (the floor of the coordinate), which
shifts labels by half a pixel against the image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate, one_hot

from maag.data.catalog import find_cases, preset, reader_of
from maag.data.geometry import Grid, scores_to_source

PRESETS = ("paper", "best", "fast")
RULES = ("nearest-exact", "nearest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    reader, base = reader_of("acdc"), preset("acdc", "paper").data
    cases = [case for case in find_cases(base, options.data) if case.masks]
    masks = [reader.load_mask(case, base).labels for case in cases]
    spacings = [reader.load_volume(case).spacing_mm for case in cases]
    print(
        f"{len(cases)} volumes\n\n| grid | rule | Dice | {' | '.join(base.classes[1:])} |\n| --- | --- | --- |", end=""
    )
    print(" --- |" * (base.num_classes - 1))
    for name in PRESETS:
        data = preset("acdc", name).data
        for rule in RULES:
            dice = np.mean(
                [
                    round_trip_dice(mask, Grid.plan(mask.shape[1:], spacing[1:], data.spacing_mm, data.size_px), rule)
                    for mask, spacing in zip(masks, spacings, strict=True)
                ],
                axis=0,
            )
            by_class = " | ".join(f"{value:.3f}" for value in dice)
            print(
                f"| {name}: {data.size_px[0]} px of {data.spacing_mm:g} mm | {rule} | {dice.mean():.3f} | {by_class} |"
            )


def round_trip_dice(mask: np.ndarray, grid: Grid, rule: str) -> list[float]:
    """Dice by class of a mask after resampling to the grid and back."""
    num_classes = 4
    planes = one_hot(torch.from_numpy(mask.astype(np.int64)), num_classes).permute(0, 3, 1, 2).float()
    on_grid = interpolate(planes, size=grid.resized_shape, mode=rule).numpy()
    # No crop: pixels outside the grid are not measured here.
    back = scores_to_source(on_grid, Grid(grid.source_shape, grid.resized_shape, grid.resized_shape)).argmax(axis=1)
    return [
        2
        * float(((back == value) & (mask == value)).sum())
        / max(1, int((back == value).sum() + (mask == value).sum()))
        for value in range(1, num_classes)
        if (mask == value).any() or not (back == value).any()
    ]


if __name__ == "__main__":
    main()
