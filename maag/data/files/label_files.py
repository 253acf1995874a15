"""Images and labels of whatever file type: NIfTI volumes, or pictures of one slice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files import nifti, pictures, volume
from maag.data.files.volume import Volume
from maag.errors import DataError

LABEL_ENDINGS = ("_scribble", "_scribbles", "_gt", "_mask", "_m", "_label", "_seg")
"""What the names of label files add to their image's."""

SUFFIXES = (*nifti.SUFFIXES, *pictures.SUFFIXES)


def suffix_of(path: Path) -> str | None:
    """The suffix in SUFFIXES that the name ends with; None for other files and macOS's `._` companions."""
    if path.name.startswith("._"):
        return None
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def stem_of(path: Path) -> str:
    """The name without such a suffix."""
    return path.name[: len(path.name) - len(suffix_of(path) or "")]


def load_image(paths: Sequence[Path]) -> Volume:
    """Read an image, one file or one for each channel. Raises as `load_channels` and `load_picture`."""
    if nifti.is_nifti(paths[0]):
        return volume.load_channels(paths)
    parts = [pictures.load_picture(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape != parts[0].shape:
            raise DataError(f"{path}: a channel of another size than {paths[0]}; bring them to one grid")
    return Volume(np.concatenate([part.voxels for part in parts]), parts[0].spacing_mm, parts[0].affine)


def load_label_file(path: Path, allowed: Collection[int]) -> NDArray[np.uint8]:
    """Read a mask or scribble: (Z, Y, X) uint8 labels as in the file.

    Raises:
        DataError: unreadable, or a value that is not among `allowed`.
        StorageError: the file cannot be opened.
    """
    if nifti.is_nifti(path):
        return volume.load_labels(path, allowed)[0]
    return volume.as_labels(pictures.load_label_indices(path), allowed, path)[None]


def holds_label(path: Path, value: int) -> bool:
    """Whether a voxel of a mask or scribble has this value; of a volume no more is unpacked than up to the first.

    Raises as `load_label_file`, but that other values may be any.
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
