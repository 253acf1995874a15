"""Corrupt files, files that claim a larger size than they hold, and valid ones to corrupt."""

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
HEADER_OFFSETS = {"dim": 40, "datatype": 70, "bitpix": 72, "pixdim": 76, "vox_offset": 108, "slope": 112, "sform": 280}
"""Byte offsets of fields in a NIfTI-1 header."""


def nifti_bytes(
    shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16, image_class: type[nib.Nifti1Image] = nib.Nifti1Image
) -> bytes:
    """A valid uncompressed NIfTI file, with a header to patch."""
    image = image_class(np.ones(shape, dtype), np.diag([1.0, 1.2, 8.0, 1.0]))
    return bytes(image.to_bytes())


def gzip_bomb(claimed_shape: tuple[int, ...], num_zeros: int) -> bytes:
    """A gzipped NIfTI header and `num_zeros` zero bytes, compressed about 1000-fold."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(claimed_shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    start = gzip.compress(bytes(header.binaryblock) + bytes(4))
    return start + gzip.compress(bytes(2**20)) * (num_zeros >> 20)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG whose header claims that size, with 999 bytes of pixel data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(999)))
        + png_chunk(b"IEND", b"")
    )


def write_dicom(path: Path, **tags: Any) -> Path:
    """Write a DICOM slice of 8 x 6 pixels with these tags changed."""
    plane = np.arange(48, dtype=np.uint16).reshape(6, 8)
    save_slice(path, plane, spacing_mm=1, thickness_mm=5, position=(0, 0, 0), series="s", number=1, tags=tags)
    return path
