"""Files that are broken or claim more than they hold, and such as are neither."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from maag.data.phantoms.dicom_files import save_slice

SHAPE = (7, 9, 3)
AT = {"dim": 40, "datatype": 70, "bitpix": 72, "pixdim": 76, "vox_offset": 108, "slope": 112, "sform": 280}
"""Where a header's fields begin, in bytes."""


def nifti(
    shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16, kind: type[nib.Nifti1Image] = nib.Nifti1Image
) -> bytes:
    """A sound file, whose header is to be patched."""
    image = kind(np.ones(shape, dtype), np.diag([1.0, 1.2, 8.0, 1.0]))
    return bytes(image.to_bytes())


def bomb(claim: tuple[int, ...], zeros: int) -> bytes:
    """A header, and as many zeros in a thousandth of their size."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(claim)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    start = gzip.compress(bytes(header.binaryblock) + bytes(4))
    return start + gzip.compress(bytes(2**20)) * (zeros >> 20)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


def dicom(path: Path, **tags: Any) -> Path:
    """A slice of 8 x 6 pixels, with these tags changed."""
    plane = np.arange(48, dtype=np.uint16).reshape(6, 8)
    save_slice(path, plane, spacing_mm=1, thickness_mm=5, position=(0, 0, 0), series="s", number=1, tags=tags)
    return path
