"""One gzip file of parts that grow side by side, where what the file holds does not come in its order."""

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
"""Deflate without a name and a time, so that the same content gives the same bytes; packed fast, on any system."""
_ALL_ONES = 0xFFFFFFFF
_ZEROS = bytes(1 << 20)


class GzipPart:
    """A part, packed as it comes into a file without a name in `folder`, which goes with the process.

    Every method raises OSError, as where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close
        self._packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, -zlib.MAX_WBITS)
        self.crc = 0
        self.size = 0
        """Bytes, unpacked."""

    def add(self, content: bytes | memoryview) -> None:
        """Pack more."""
        self._file.write(self._packer.compress(content))
        self.crc = zlib.crc32(content, self.crc)
        self.size += len(content)

    def move_to(self, target: BinaryIO, *, last: bool) -> None:
        """Append all to `target`, where parts may follow unless it is the last, and close it."""
        with closing(self):
            # Up to a whole byte, where the next part's blocks can begin.
            self._file.write(self._packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH))
            self._file.seek(0)
            shutil.copyfileobj(self._file, target, len(_ZEROS))

    def close(self) -> None:
        """Let go of its file."""
        self._file.close()


def write_parts(parts: Sequence[GzipPart], target: BinaryIO) -> None:
    """Write a gzip file of the parts' contents one after the other, and close them. Raises OSError."""
    target.write(_HEADER)
    crc = size = 0
    for part in parts:
        part.move_to(target, last=part is parts[-1])
        crc, size = _crc_after_zeros(crc, part.size) ^ part.crc, size + part.size
    target.write(struct.pack("<LL", crc, size & _ALL_ONES))


def _crc_after_zeros(crc: int, size: int) -> int:
    """What `crc` contributes to the checksum of its content with `size` bytes more, whatever those are.

    CRC-32 is linear but for the bits that it turns round before and after.
    """
    crc ^= _ALL_ONES
    while size:
        crc = zlib.crc32(_ZEROS[:size], crc)
        size -= min(size, len(_ZEROS))
    return crc ^ _ALL_ONES
