"""Synthetic cine studies in LVSC's layout, with the irregularities of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maag.data.phantoms.dicom_files import save_png, save_slice
from maag.data.phantoms.heart import MYO, draw_heart, draw_image, draw_mask, draw_tissue
from maag.storage import write_text

_NUM_PHASES = 4


def write_studies(out: Path, num_cases: int, seed: int) -> None:
    """Write studies `DET0000101` and so on, each slice and phase a DICOM file and a PNG of the myocardium.

    As in the real data: slice numbers do not follow the order in space, there is a long-axis file without a mask, PNGs
    are grey or colour, one extension is in capitals, one file lacks SliceLocation, one slice has another size, and
    there is a table beside the folders. Same seed, same bytes. Raises StorageError.
    """
    write_text(out / "EDES_Phases_TrainingDataSets.csv", "Patient,ED,ES\n")
    for number in range(1, num_cases + 1):
        study = f"DET{number * 100 + 1:07}"
        random = np.random.default_rng([seed, number])
        heart = draw_heart(random)
        tissue = draw_tissue(heart, random)
        depth = heart.shape[0]
        names = random.permutation(depth) + 1
        deepest = float(random.uniform(0.25, 0.4))
        for phase in range(_NUM_PHASES):
            mask = draw_mask(heart, deepest * np.sin(np.pi * phase / _NUM_PHASES))
            image = draw_image(mask, tissue, random).astype(np.uint16)
            for place in range(depth):
                odd = number % 3 == 0 and place == depth - 1
                rows = slice(8, -8) if odd else slice(None)
                stem = f"{study}_SA{names[place]}_ph{phase}"
                suffix = ".DCM" if number % 2 == 0 and place == 0 else ".dcm"
                save_slice(
                    out / study / f"{stem}{suffix}",
                    image[place, rows],
                    spacing_mm=heart.spacing_mm,
                    thickness_mm=heart.slice_mm,
                    position=(-100.0, -90.0, 40.0 + place * heart.slice_mm),
                    series=f"{seed} {study}",
                    number=place * _NUM_PHASES + phase,
                    tags={"SliceLocation": None} if place == 1 else None,
                )
                ring = Image.fromarray((255 * (mask[place, rows] == MYO)).astype(np.uint8))
                save_png(out / study / f"{stem}.png", ring.convert("RGB") if place % 2 else ring)
        save_slice(
            out / study / f"{study}_LA1_ph0.dcm",
            image[0],
            spacing_mm=heart.spacing_mm,
            thickness_mm=heart.slice_mm,
            position=(0.0, 0.0, 0.0),
            series=f"{seed} {study} long axis",
            number=0,
        )
