"""Decompression bombs: files that claim a huge size are read in little memory or refused."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hostile_files import HEADER_OFFSETS, gzip_bomb, png_of_claimed_size, write_dicom

from maag.data.files.volume import load_volume
from maag.errors import DataError


def test_a_gzip_bomb_is_refused_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip_bomb((1024, 512, 256), 2**27))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="unlike any scan"):
            load_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_data_after_the_voxels_is_never_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "endless.nii.gz"
    path.write_bytes(gzip_bomb((8, 8, 2), 2**27))
    tracemalloc.start()
    try:
        assert load_volume(path).shape == (2, 8, 8)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_header_extension_claiming_gigabytes_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(gzip_bomb((8, 8, 2), 0)) + bytes(200))
    struct.pack_into("<f", content, HEADER_OFFSETS["vox_offset"], 2.0e9)
    content[348] = 1
    struct.pack_into("<2i", content, 352, 2**31 - 16, 6)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(bytes(content) + bytes(2**22)))
    with pytest.raises(DataError, match=r"begin at byte 2e\+09"):
        load_volume(path)


READ_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from maag.data.files.dicom_series import load_series
from maag.data.files.pictures import load_picture
from maag.data.files.volume import load_volume
from maag.errors import DataError
with open("/proc/self/statm") as stream:
    used = int(stream.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
for name in sys.argv[1:]:
    path = Path(name)
    read = {".png": load_picture, ".dcm": lambda path: load_series([path])}.get(path.suffix, load_volume)
    try:
        read(path)
    except DataError:
        continue
    sys.exit(name)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip_bomb((1024, 1024, 1024), 2**30))
    (tmp_path / "b.png").write_bytes(png_of_claimed_size(9000, 9000))
    write_dicom(tmp_path / "c.dcm", Rows=8000, Columns=8000)
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_LITTLE_MEMORY, *files], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
