"""Images and labels of any file type: NIfTI volumes, or pictures of one slice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files import nifti, pictures, volume
from maag.data.files.volume import Volume
from maag.errors import DataError

LABEL_ENDINGS = ("_scribble", "_scribbles", "_gt", "_mask", "_m", "_label", "_seg")
"""Endings that the names of label files add to their image's name."""

SUFFIXES = (*nifti.SUFFIXES, *pictures.SUFFIXES)


def suffix_of(path: Path) -> str | None:
    """The name's suffix in SUFFIXES; None for other files and macOS's `._` companions."""
    if path.name.startswith("._"):
        return None
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def stem_of(path: Path) -> str:
    """The name without its suffix in SUFFIXES."""
    return path.name[: len(path.name) - len(suffix_of(path) or "")]


def load_image(paths: Sequence[Path]) -> Volume:
    """Read an image from one file or a file per channel. Raises as `load_channels` and `load_picture`."""
    if nifti.is_nifti(paths[0]):
        return volume.load_channels(paths)
    parts = [pictures.load_picture(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape != parts[0].shape:
            raise DataError(f"{path}: a channel of another size than {paths[0]}; all channels must have one size")
    return Volume(np.concatenate([part.voxels for part in parts]), parts[0].spacing_mm, parts[0].affine)


def load_label_file(path: Path, allowed: Collection[int]) -> NDArray[np.uint8]:
    """Read a mask or scribble: (Z, Y, X) uint8 labels as in the file.

    Raises:
        DataError: unreadable, or a value is not in `allowed`.
        StorageError: the file cannot be opened.
    """
    if nifti.is_nifti(path):
        return volume.load_labels(path, allowed)[0]
    return volume.as_labels(pictures.load_label_indices(path), allowed, path)[None]


def holds_label(path: Path, value: int) -> bool:
    """Whether a voxel of a mask or scribble has this value; a volume is only unpacked up to the first such voxel.

    Raises as `load_label_file`, except that any other values are allowed.
    """
    if nifti.is_nifti(path):
        parts = nifti.read_parts(nifti.open_nifti(path), path)
        return any(bool((volume.near_integers(part) == value).any()) for part in parts)
    return bool((pictures.load_label_indices(path) == value).any())


def geometry_of(path: Path) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape (Z, Y, X) and spacing (z, y, x) in mm. Raises as `load_image`."""
    if nifti.is_nifti(path):
        return volume.load_geometry(path)
    width, height = pictures.open_picture(path).size
    return (1, height, width), (1.0, 1.0, 1.0)
