"""A gzip file from parts that are compressed side by side, for content that does not come in the file's order."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

_FASTEST = 1
_HEADER = struct.pack("<BBBBLBB", 0x1F, 0x8B, 8, 0, 0, 4, 255)
"""Deflate without name and time, so that the same content gives the same bytes; fastest, unknown system."""
_ALL_ONES = 0xFFFFFFFF
_ZEROS = bytes(1 << 20)


class GzipPart:
    """A part, compressed into an unnamed temporary file in `folder`, which disappears with the process.

    Every method raises OSError, for example when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close
        self._compressor = zlib.compressobj(_FASTEST, zlib.DEFLATED, -zlib.MAX_WBITS)
        self.crc = 0
        self.size = 0
        """Uncompressed bytes."""

    def add(self, content: bytes | memoryview) -> None:
        """Compress and append `content`."""
        self._file.write(self._compressor.compress(content))
        self.crc = zlib.crc32(content, self.crc)
        self.size += len(content)

    def move_to(self, target: BinaryIO, *, last: bool) -> None:
        """Append the part to `target` and close it; other parts may follow unless it is the `last`."""
        with closing(self):
            # A sync flush ends on a whole byte, where the next part's blocks can begin.
            self._file.write(self._compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH))
            self._file.seek(0)
            shutil.copyfileobj(self._file, target, len(_ZEROS))

    def close(self) -> None:
        """Remove its temporary file."""
        self._file.close()


def write_parts(parts: Sequence[GzipPart], target: BinaryIO) -> None:
    """Write the parts' contents to a gzip file, one after the other, and close them. Raises OSError."""
    target.write(_HEADER)
    crc = size = 0
    for part in parts:
        part.move_to(target, last=part is parts[-1])
        crc, size = _crc_after_zeros(crc, part.size) ^ part.crc, size + part.size
    target.write(struct.pack("<LL", crc, size & _ALL_ONES))


def _crc_after_zeros(crc: int, size: int) -> int:
    """The contribution of `crc` to the checksum of its content followed by `size` more bytes of any value.

    CRC-32 is linear except for the inversion of all bits before and after.
    """
    crc ^= _ALL_ONES
    while size:
        crc = zlib.crc32(_ZEROS[:size], crc)
        size -= min(size, len(_ZEROS))
    return crc ^ _ALL_ONES
