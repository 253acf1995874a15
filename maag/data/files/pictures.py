"""PNG, JPEG, TIFF and BMP files as arrays."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from maag.data.files.volume import Volume
from maag.errors import DataError, first_line
from maag.storage import replacing, require_regular_file

COLOURS = 3
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

# A picture with more pixels and a better ratio than this is a false claim, or of one colour.
_BOMB_PIXELS, _BOMB_RATIO = 2**22, 500
# What Pillow's decoders raise for damaged files.
_UNREADABLE = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError),
    *(EOFError, struct.error, zlib.error),
)


def load_picture(path: Path, shape: tuple[int, int] | None = None) -> Volume:
    """Read a grey or colour image as a volume of one slice with pixels of 1 mm.

    Args:
        path: the file.
        shape: resize to these rows and columns, bicubic and anti-aliased.

    Raises:
        DataError: not a readable image.
        StorageError: the file cannot be opened.
    """
    image = open_picture(path)
    if image.mode in ("P", "RGBA", "CMYK", "YCbCr", "LA"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    channels = [band.convert("F") for band in image.split()]
    if shape is not None:
        channels = [band.resize((shape[1], shape[0]), Image.Resampling.BICUBIC) for band in channels]
    planes = np.stack([np.asarray(band, dtype=np.float32) for band in channels])
    if not np.isfinite(planes).all():
        raise DataError(f"{path}: some pixels are NaN or infinite; replace them, or leave the image out")
    return Volume(planes[:, None], (1.0, 1.0, 1.0), np.eye(4))


def in_colours(grey: Volume) -> Volume:
    """A grey picture as an RGB one."""
    return replace(grey, voxels=np.repeat(grey.voxels, COLOURS, axis=0))


def load_indices(path: Path, *, as_shown: bool = False) -> NDArray[Any]:
    """The stored values of a label image: (Y, X) grey values or palette indices, or (Y, X, 3) colours.

    With `as_shown` the palette's colours instead of indices. Raises as `load_picture`.
    """
    return _values_of(open_picture(path, of_labels=True), as_shown=as_shown)


def _values_of(image: Image.Image, *, as_shown: bool = False) -> NDArray[Any]:
    if image.mode in ("RGBA", "LA") or (as_shown and image.mode == "P"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    return np.asarray(image)


def load_label_indices(path: Path) -> NDArray[Any]:
    """(Y, X) as `load_indices`, also for a grey picture that is stored as RGB.

    Raises as `load_picture`, and DataError for colours, and for a palette of the labels as greys in another order.
    """
    image = open_picture(path, of_labels=True)
    stored = _values_of(image)
    if image.mode == "P" and _exchanges_labels(stored, _values_of(image, as_shown=True)):
        raise DataError(
            f"{path}: its palette shows the labels in another order than its indices, so it is unclear which are "
            "right: save it with grey values"
        )
    if stored.ndim == 3:
        if (stored != stored[:, :, :1]).any():
            raise DataError(
                f"{path}: a colour image; labels must be grey values or palette indices: save it as one of these"
            )
        stored = stored[:, :, 0]
    return stored


def _exchanges_labels(indices: NDArray[Any], shown: NDArray[Any]) -> bool:
    """Whether a palette's colours (Y, X, 3) are greys that are the `indices` (Y, X) in another order.

    Programs that make PNG files smaller may store grey labels like this, for example with the most frequent one first.
    """
    grey = shown[:, :, 0]
    return (
        bool((shown == grey[:, :, None]).all())
        and np.array_equal(np.unique(grey), np.unique(indices))
        and not np.array_equal(grey, indices)
    )


def save_indices(path: Path, indices: NDArray[np.uint8]) -> None:
    """Write (Y, X) labels as a grey PNG, atomically. Raises StorageError."""
    with replacing(path) as temporary:
        Image.fromarray(indices).save(temporary, format="PNG")


def open_picture(path: Path, *, of_labels: bool = False) -> Image.Image:
    """The decoded image, rotated by its EXIF orientation as viewers show it. Raises as `load_picture`.

    Files `of_labels` may have any compression ratio, as most of their pixels are equal.
    """
    size = require_regular_file(path)
    try:
        # Given a path, Pillow memory-maps uncompressed TIFF files, and confuses rows and columns of rotated ones.
        with _strict_pillow(), path.open("rb") as stream, Image.open(stream) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise DataError(f"{path}: holds {pages} pictures; save the right one as a file of its own")
            pixels = image.width * image.height
            tight = pixels > _BOMB_PIXELS and pixels * len(image.getbands()) > _BOMB_RATIO * size
            if tight and not of_labels:
                raise DataError(
                    f"{path}: {size} bytes that claim {image.width} x {image.height} pixels; it is truncated or nearly "
                    "empty: save it again"
                )
            upright = ImageOps.exif_transpose(image)
            upright.load()
            return upright
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: the header claims more than {Image.MAX_IMAGE_PIXELS} pixels; if that is right, cut it into parts"
        ) from error
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable image ({first_line(error)}); copy or save it again") from error


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Make Pillow's warning above its size limit an error, and ignore its other warnings, such as of odd tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def is_picture(path: Path) -> bool:
    """Whether the name is a picture's; macOS's `._` companions are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._")
