"""PNG, JPEG and TIFF files as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maag.data.volume import Volume
from maag.errors import DataError
from maag.storage import replacing, storage_errors

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def load_picture(path: Path, shape: tuple[int, int] | None = None) -> Volume:
    """Read a grey or colour image as a volume of one slice, of pixels of 1 mm.

    Args:
        path: the file.
        shape: resize to these rows and columns, cubic and anti-aliased.

    Raises:
        DataError: not a readable image.
        StorageError: the file cannot be opened.
    """
    image = open_picture(path)
    if image.mode in ("P", "RGBA", "CMYK", "YCbCr", "LA"):
        image = image.convert("RGB")
    channels = [band.convert("F") for band in image.split()]
    if shape is not None:
        channels = [band.resize((shape[1], shape[0]), Image.Resampling.BICUBIC) for band in channels]
    planes = np.stack([np.asarray(band, dtype=np.float32) for band in channels])
    return Volume(planes[:, None], (1.0, 1.0, 1.0), np.eye(4))


def load_indices(path: Path) -> NDArray[Any]:
    """The stored values of a label image: (Y, X) grey values or palette indices, or (Y, X, 3) colours.

    Raises as `load_picture`.
    """
    image = open_picture(path)
    if image.mode in ("RGBA", "LA"):
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    return np.asarray(image)


def save_indices(path: Path, indices: NDArray[np.uint8]) -> None:
    """Write (Y, X) labels as a grey PNG, atomically. Raises StorageError."""
    with replacing(path) as temporary:
        Image.fromarray(indices).save(temporary, format="PNG")


def open_picture(path: Path) -> Image.Image:
    """The decoded image as it is stored. Raises as `load_picture`."""
    with storage_errors(path, "read"):
        path.open("rb").close()
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable image ({str(error).splitlines()[0]}); copy or save it again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def is_picture(path: Path) -> bool:
    """Whether the name is that of an image; macOS's `._` companions are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._")
