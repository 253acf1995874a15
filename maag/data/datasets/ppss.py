"""PPSS: pedestrians in surveillance videos as colour JPEG, with body-part masks as palette or RGB PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, ReaderDefaults
from maag.data.files.folder_tree import files_below, is_there
from maag.data.files.natural_order import natural_key
from maag.data.files.pictures import in_colours, load_indices, load_picture
from maag.data.files.volume import Volume
from maag.data.phantoms.ppss_palette import COLOURS, INDICES
from maag.errors import DataError

_TRAIN_VIDEOS = range(1, 101)
_MASK_SHAPE = (160, 80)
_UNKNOWN = 255


class PpssReader(ReaderDefaults):
    """A numbered folder for each video, `1/0024_15.jpg` with `1/0024_15_m.png`; videos 1 to 100 are for training.

    Images are resized to their mask's grid. Pictures without a mask are unlabelled.
    """

    layout = "<video>/<name>.jpg with <video>/<name>_m.png, videos numbered, at any depth"
    defaults: Mapping[str, Any] = {
        "data.classes": [
            *("background", "hair", "face", "upper clothes", "lower clothes", "arms", "legs", "shoes"),
        ],
        "data.channels": 3,
        "data.unlabelled_value": 8,
        "data.spacing_mm": 1.0,
        "data.size_px": [160, 80],
        "data.normalization": "unit",
    }
    default_scribbles = "simulated:skeleton-dilated"

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader."""
        images = [
            path
            for path in files_below(directory)
            if path.suffix.lower() in (".jpg", ".jpeg") and path.parent.name.isdigit()
        ]
        cases = []
        for image in sorted(images, key=lambda path: natural_key(str(path))):
            video = int(image.parent.name)
            mask = image.with_name(f"{image.stem}_m.png")
            cases.append(
                Case(
                    case_id=f"video{video:03}_{image.stem}",
                    patient_id=f"video{video:03}",
                    frame=image.stem,
                    images=(image,),
                    masks=(mask,) if is_there(mask) else (),
                    part="train" if video in _TRAIN_VIDEOS else "test",
                )
            )
        return tuple(cases)

    def load_volume(self, case: Case) -> Volume:
        """See Reader; (3, 1, rows, columns) in [0, 255], of the mask's size, or 160 x 80 without a mask."""
        shape = load_indices(case.masks[0]).shape[:2] if case.masks else _MASK_SHAPE
        volume = load_picture(case.images[0], (int(shape[0]), int(shape[1])))
        return in_colours(volume) if len(volume.voxels) == 1 else volume

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader."""
        path = case.masks[0]
        stored = load_indices(path)
        labels = _from_colours(stored) if stored.ndim == 3 else _from_indices(stored)
        unknown = int((labels == _UNKNOWN).sum())
        if unknown:
            raise DataError(
                f"{path}: {unknown} of {labels.size} pixels have a colour of no class; the file was saved "
                "with loss or belongs to another data set: restore the original, or leave it out"
            )
        return Mask(labels[None])

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.ppss import write_videos

        write_videos(out / "pedestrian_parsing_dataset" / "data", num_cases, seed)


def with_mask_extent(picture: Volume) -> Volume:
    """A picture with the spacing that makes it 160 x 80 mm, the size of the masks, on which models are trained."""
    _, height, width = picture.shape
    return Volume(picture.voxels, (1.0, _MASK_SHAPE[0] / height, _MASK_SHAPE[1] / width), picture.affine)


def _from_indices(stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[list(INDICES)] = range(len(INDICES))
    labels: NDArray[np.uint8] = table[stored.astype(np.uint8)]
    return labels


def _from_colours(stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    labels = np.full(stored.shape[:2], _UNKNOWN, dtype=np.uint8)
    for value, colour in enumerate(COLOURS):
        labels[(stored == np.array(colour, dtype=np.uint8)).all(axis=2)] = value
    return labels
