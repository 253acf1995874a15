"""Synthetic short-axis hearts in the two layouts for own data: nnU-Net's, and plain folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.nifti_writing import save_volume
from maag.data.phantoms.heart import draw_heart, draw_image, draw_mask, draw_tissue
from maag.data.scribbles.styles import simulate
from maag.labels import IGNORE
from maag.storage import write_json, write_text

_CLASSES = ("background", "RV", "MYO", "LV")
_UNLABELLED = len(_CLASSES)
_ROLES = ("scribbled", "shapes", "val", "scribbled", "unlabelled", "test", "shapes")


def write_nnunet(out: Path, num_cases: int, seed: int) -> None:
    """Half of the training labels are scribbles with `ignore`, half masks; every fifth case is in Ts."""
    in_test = [number % 5 == 4 for number in range(num_cases)]
    for number, test in enumerate(in_test):
        image, mask, scribble, affine = _patient(number, seed)
        name, ending = f"heart_{number:03}", "Ts" if test else "Tr"
        save_volume(out / f"images{ending}" / f"{name}_0000.nii.gz", image, affine)
        save_volume(out / f"labels{ending}" / f"{name}.nii.gz", mask if test or number % 2 else scribble, affine)
    described = {
        "channel_names": {"0": "cineMRI"},
        "labels": {**{name: value for value, name in enumerate(_CLASSES)}, "ignore": _UNLABELLED},
        "numTraining": in_test.count(False),
        "file_ending": ".nii.gz",
    }
    write_json(out / "dataset.json", described)


def write_folders(out: Path, num_cases: int, seed: int) -> None:
    """Cases with scribbles, with masks, and without labels; `cases.csv` has the split."""
    rows = ["case,patient,split,supervision,rater"]
    for number in range(num_cases):
        image, mask, scribble, affine = _patient(number, seed)
        name, role = f"heart_{number:03}", _ROLES[number % len(_ROLES)]
        save_volume(out / ("unlabelled" if role == "unlabelled" else "images") / f"{name}.nii.gz", image, affine)
        if role == "scribbled":
            save_volume(out / "scribbles" / f"{name}_scribble.nii.gz", scribble, affine)
        elif role != "unlabelled":
            save_volume(out / "masks" / f"{name}.nii.gz", mask, affine)
        rows.append(f"{name},{name},{role if role in ('val', 'test') else 'train'},,")
    write_text(out / "cases.csv", "\n".join(rows) + "\n")
    write_text(out / "classes.txt", "\n".join(_CLASSES) + "\n")


def _patient(
    number: int, seed: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Image, mask, scribble (Z, Y, X) and affine."""
    random = np.random.default_rng([seed, number, 2])
    heart = draw_heart(random)
    mask = draw_mask(heart, float(random.uniform(0, 0.3)))
    image = draw_image(mask, draw_tissue(heart, random), random)
    strokes = simulate(mask, len(_CLASSES), "expert", seed=seed, case_id=str(number))
    scribble = np.where(strokes == IGNORE, np.uint8(_UNLABELLED), strokes)
    return image, mask, scribble, np.diag([heart.spacing_mm, heart.spacing_mm, heart.slice_mm, 1.0])
