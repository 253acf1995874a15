"""Synthetic short-axis hearts in ACDC's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maag.data.files.nifti_writing import save_volume
from maag.data.phantoms.heart import draw_heart, draw_image, draw_mask, draw_tissue
from maag.data.scribbles.styles import simulate
from maag.labels import IGNORE
from maag.storage import write_text

_NUM_CLASSES = 4
_UNLABELLED = 4
_NUM_FRAMES = 30


def write_short_axis_patients(out: Path, patients: Sequence[str], seed: int) -> None:
    """Write `patients` as ACDC does: Info.cfg, and image, mask and scribble at end-diastole and end-systole.

    As in the published data, images have an origin and scribbles only a qform, with origin 0. Same patients
    and seed, same bytes. Raises StorageError.
    """
    for patient in patients:
        random = np.random.default_rng([seed, *patient.encode()])
        heart = draw_heart(random)
        systole = int(random.integers(8, 15))
        diastole = 4 if patient == "patient090" else 1  # the only patient whose first frame is not end-diastole
        folder = out / patient
        write_text(folder / "Info.cfg", _info(random, diastole, systole))
        texture = draw_tissue(heart, random)
        origin = random.uniform(-100, 100, size=3)
        for frame, contraction in ((diastole, 0.0), (systole, float(random.uniform(0.25, 0.4)))):
            mask = draw_mask(heart, contraction)
            image = draw_image(mask, texture, random)
            strokes = simulate(mask, _NUM_CLASSES, "expert", seed=seed, case_id=f"{patient}_frame{frame:02}")
            scribble = np.where(strokes == IGNORE, _UNLABELLED, strokes)
            stem = folder / f"{patient}_frame{frame:02}"
            affine = np.diag([heart.spacing_mm, heart.spacing_mm, heart.slice_mm, 1.0])
            placed = affine.copy()
            placed[:3, 3] = origin
            save_volume(stem.with_name(f"{stem.name}.nii.gz"), image, placed)
            save_volume(stem.with_name(f"{stem.name}_gt.nii.gz"), mask, placed)
            save_volume(stem.with_name(f"{stem.name}_scribble.nii.gz"), scribble.astype(np.uint16), affine, sform=False)


def _info(random: np.random.Generator, diastole: int, systole: int) -> str:
    group = random.choice(["NOR", "MINF", "DCM", "HCM", "RV"])
    height, weight = random.uniform(150, 190), random.uniform(50, 100)
    return (
        f"ED: {diastole}\nES: {systole}\nGroup: {group}\nHeight: {height:.1f}\nNbFrame: {_NUM_FRAMES}\n"
        f"Weight: {weight:.1f}\n"
    )
