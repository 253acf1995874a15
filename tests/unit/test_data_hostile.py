"""Broken and hostile files are one sentence: no crash, no wait without end, no memory that they merely claim."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from deploy.inputs.images import find_images
from maag.config.data import DataConfig
from maag.data.files.dicom_file import series_uid
from maag.data.files.dicom_series import load_series
from maag.data.files.label_files import geometry_of
from maag.data.files.nifti_writing import save_labels
from maag.data.files.pictures import load_picture
from maag.data.files.volume import Volume, load_volume, num_volumes
from maag.data.geometry import prepare_image
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import ConfigError, DataError, MissingDataError, StorageError

SHAPE = (7, 9, 3)
AT = {"dim": 40, "datatype": 70, "bitpix": 72, "pixdim": 76, "vox_offset": 108, "slope": 112, "sform": 280}


def nifti(
    shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16, kind: type[nib.Nifti1Image] = nib.Nifti1Image
) -> bytes:
    image = kind(np.ones(shape, dtype), np.diag([1.0, 1.2, 8.0, 1.0]))
    return bytes(image.to_bytes())


def patched(where: str, form: str, *values: float) -> bytes:
    content = bytearray(nifti())
    struct.pack_into(form, content, AT[where], *values)
    return bytes(content)


def colours() -> bytes:
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return bytes(nib.Nifti1Image(np.zeros(SHAPE, rgb), np.eye(4)).to_bytes())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a readable NIfTI file"),
        (b"<!DOCTYPE html><html>" * 40, "it does not begin with a header"),
        (patched("dim", "<h", 0), "the header claims"),
        (patched("dim", "<4h", 3, 7, -9, 3), "claims 7 x -9 x 3 voxels"),
        (patched("dim", "<4h", 3, 7, 0, 3), "claims 7 x 0 x 3 voxels"),
        (patched("dim", "<4h", 3, 30000, 30000, 3), "claims 30000 x 30000 x 3"),
        (patched("pixdim", "<4f", 1, np.nan, 1, 1), "voxel size nan"),
        (patched("datatype", "<h", 999), "unknown type .datatype 999"),
        (patched("vox_offset", "<f", 1e9), "begin at byte 1e.09"),
        (patched("vox_offset", "<f", np.nan), "begin at byte nan"),
        (patched("vox_offset", "<f", -5), "begin at byte -5"),
        (patched("slope", "<2f", 1, np.inf), "damaged|not a readable"),
        (patched("slope", "<2f", 3e38, 3e38), "NaN or infinite"),
        (patched("sform", "<12f", *[0] * 12), "is singular"),
        (patched("sform", "<12f", 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0), "is singular"),
        (patched("sform", "<12f", np.nan, *[0] * 11), "no number"),
        (nifti((7,)), "1-D of shape"),
        (nifti((7, 9, 3, 1, 3)), "5-D of shape"),
        (nifti((7, 9, 3, 2, 3)), "5-D of shape"),
        (nifti(dtype=np.complex64), "voxels of type complex64"),
        (colours(), "colour .R, G, B"),
        (bytes(nib.AnalyzeImage(np.ones(SHAPE, np.int16), np.eye(4)).header.binaryblock) * 9, "not"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_broken_nifti_is_named(tmp_path: Path, content: bytes, sentence: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content, mtime=0) if suffix.endswith("gz") else content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_volume(path, 0 if num_volumes(path) > 1 else None)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_either_version_and_byte_order_is_read_and_labelled(
    tmp_path: Path, kind: type[nib.Nifti1Image], suffix: str
) -> None:
    voxels = np.arange(np.prod(SHAPE), dtype=">i2").reshape(SHAPE)
    header = kind.header_class(endianness=">")
    header.set_data_dtype(">i2")
    path = tmp_path / f"big{suffix}"
    nib.save(kind(voxels, np.diag([1, 1, 8, 1]), header), path)
    np.testing.assert_array_equal(load_volume(path).voxels[0], voxels.T)
    save_labels(tmp_path / f"out{suffix}", np.ones(SHAPE[::-1], np.uint8), path, ("background", "a"))
    written = nib.load(tmp_path / f"out{suffix}")
    assert type(written) is kind
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)


def test_a_pair_of_analyze_files_is_no_image(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(np.ones(SHAPE, np.int16), np.eye(4)), tmp_path / "x.img")
    with pytest.raises(MissingDataError):
        find_images(tmp_path)
    with pytest.raises(ConfigError, match="neither a NIfTI file nor a picture"):
        find_images(tmp_path / "x.img")


def test_a_cine_may_say_that_it_holds_one_thing_more(tmp_path: Path) -> None:
    path = tmp_path / "cine.nii.gz"
    path.write_bytes(gzip.compress(nifti((7, 9, 3, 2, 1))))
    assert num_volumes(path) == 2
    assert load_volume(path, 1).shape == SHAPE[::-1]
    save_labels(tmp_path / "out.nii", np.zeros((2, *SHAPE[::-1]), np.uint8), path, ("background",))
    assert nib.load(tmp_path / "out.nii").shape == (*SHAPE, 2)


def bomb(claim: tuple[int, ...], zeros: int) -> bytes:
    """A header, and as many zeros in a thousandth of their size."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(claim)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    start = gzip.compress(bytes(header.binaryblock) + bytes(4))
    return start + gzip.compress(bytes(2**20)) * (zeros >> 20)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(bomb((1024, 512, 256), 2**27))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="no scan packs so tight"):
            load_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_what_follows_the_voxels_is_never_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "endless.nii.gz"
    path.write_bytes(bomb((8, 8, 2), 2**27))
    tracemalloc.start()
    try:
        assert load_volume(path).shape == (2, 8, 8)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_an_extension_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(bomb((8, 8, 2), 0)) + bytes(200))
    struct.pack_into("<f", content, AT["vox_offset"], 2.0e9)
    content[348] = 1
    struct.pack_into("<2i", content, 352, 2**31 - 16, 6)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(bytes(content) + bytes(2**22)))
    with pytest.raises(DataError, match=r"begin at byte 2e\+09"):
        load_volume(path)


@settings(max_examples=80, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 543), st.integers(0, 255)), min_size=1, max_size=6),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    packed=st.booleans(),
    cine=st.booleans(),
)
def test_any_damaged_header_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory,
    flips: list[tuple[int, int]],
    kind: type[nib.Nifti1Image],
    packed: bool,
    cine: bool,
) -> None:
    content = bytearray(nifti((7, 9, 3, 2) if cine else SHAPE, kind=kind))
    for place, value in flips:
        content[place] = value
    path = tmp_path_factory.getbasetemp() / f"flipped{'.nii.gz' if packed else '.nii'}"
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
    try:
        count = num_volumes(path)
        volume = load_volume(path, 0 if count > 1 else None)
        save_labels(path.with_name("out.nii"), np.zeros((count, *volume.shape), np.uint8)[:1][0], path, ("a",))
    except (DataError, StorageError):
        return


def test_a_spacing_of_kilometres_is_not_resampled() -> None:
    volume = Volume(np.ones((1, 2, 8, 8), np.float32), (1.0, 1e6, 1e6), np.eye(4))
    with pytest.raises(DataError, match=r"8 x 8 pixels of 1e\+06 x 1e\+06 mm are .* correct the spacing"):
        prepare_image(volume, DataConfig(classes=("background", "a"), spacing_mm=1.0))


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.png", "x.dcm"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    path = tmp_path / name
    make(path)
    read = {".png": load_picture, ".dcm": lambda path: load_series([path])}.get(path.suffix, load_volume)
    with pytest.raises(StorageError, match="a folder, a pipe or a device"):
        read(path)
    with pytest.raises((MissingDataError, ConfigError)):
        find_images(path)
    with pytest.raises(MissingDataError):
        find_images(tmp_path)


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to("b.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to("a.nii.gz")
    (tmp_path / "down").symlink_to(tmp_path)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(nifti()))
    assert [image.target.name for image in find_images(tmp_path)] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    with pytest.raises(StorageError, match="lead in a circle"):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(nifti())
    path.chmod(0)
    with pytest.raises(StorageError, match="ask for the right to read it"):
        load_volume(path)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


GREY = Image.new("L", (5, 4), 7)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.png", png_claiming(60000, 60000), "more than 89478485 pixels"),
        ("x.png", png_claiming(10000, 10000), "more than 89478485 pixels"),
        ("x.png", png_claiming(9000, 9000), "claim 9000 x 9000 pixels"),
        ("x.png", png_claiming(0, 10), "not a readable image"),
        ("x.png", b"", "not a readable image"),
        ("x.jpg", b"<html></html>", "not a readable image"),
        ("x.jpg", saved(NOISE, "JPEG")[:900], "truncated"),
        ("x.tif", saved(GREY, "TIFF", save_all=True, append_images=[GREY]), "holds 2 pictures"),
        ("x.png", saved(GREY, "PNG", save_all=True, append_images=[Image.new("L", (5, 4))]), "holds 2 pictures"),
        ("x.tif", saved(Image.fromarray(np.full((4, 5), np.nan, np.float32)), "TIFF"), "NaN or infinite"),
    ],
)
def test_a_broken_picture_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_picture(tmp_path / name)
    assert name in str(caught.value)


def test_sixteen_bits_and_palettes_are_read(tmp_path: Path) -> None:
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    (tmp_path / "deep.png").write_bytes(saved(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(load_picture(tmp_path / "deep.png").voxels[0, 0], deep)
    (tmp_path / "palette.png").write_bytes(saved(NOISE.quantize(16), "PNG"))
    assert load_picture(tmp_path / "palette.png").voxels.shape == (3, 1, 60, 60)


@pytest.mark.parametrize(("name", "form"), [("x.jpg", "JPEG"), ("x.png", "PNG"), ("x.tif", "TIFF")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_read_as_it_is_shown(tmp_path: Path, name: str, form: str, orientation: int) -> None:
    shown = np.kron([[0, 250, 0], [0, 0, 120]], np.ones((8, 8))).astype(np.uint8)
    stored = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
        5: shown.T, 6: np.rot90(shown), 7: shown[::-1, ::-1].T, 8: np.rot90(shown, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / name).write_bytes(saved(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif))
    np.testing.assert_allclose(load_picture(tmp_path / name).voxels[0, 0], shown, atol=20)
    assert geometry_of(tmp_path / name)[0] == (1, *shown.shape)


def dicom(path: Path, **tags: Any) -> Path:
    plane = np.arange(48, dtype=np.uint16).reshape(6, 8)
    save_slice(path, plane, spacing_mm=1, thickness_mm=5, position=(0, 0, 0), series="s", number=1, tags=tags)
    return path


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels"),
        ({"Rows": 6000, "Columns": 6000}, "cannot be decoded"),
        ({"PixelData": None}, "without pixel data"),
        ({"Columns": 9}, r"cannot be decoded .*; copy or export it again"),
        ({"NumberOfFrames": 2, "Rows": 3}, "holds 2 frames, and one grey slice a file is needed"),
        ({"NumberOfFrames": 2, "Rows": 3, "PixelSpacing": None}, "holds 2 frames, .* enhanced"),
        ({"SamplesPerPixel": 3}, "cannot be decoded"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing 0 x 1 mm"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no two perpendicular directions"),
        ({"ImagePositionPatient": None}, "DICOM without ImagePositionPatient"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}, "NaN or infinite"),
    ],
)
def test_a_broken_slice_is_named(tmp_path: Path, tags: dict[str, Any], sentence: str) -> None:
    path = dicom(tmp_path / "x.dcm", **tags)
    with pytest.raises(DataError, match=sentence) as caught:
        load_series([path])
    assert "x.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_a_codec_that_is_absent_or_fails_is_named(tmp_path: Path, syntax: str) -> None:
    path = dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"nothing of the kind"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    with pytest.raises(DataError, match=r"cannot be decoded .* export the series uncompressed, or .*python-gdcm"):
        load_series([path])


def test_a_slice_with_a_damaged_header_is_not_left_out_of_its_folder(tmp_path: Path) -> None:
    whole = dicom(tmp_path / "in" / "a.dcm").read_bytes()
    place = whole.index(struct.pack("<HHI", 0x28, 0x10, 2))
    (tmp_path / "in" / "b.dcm").write_bytes(whole[:place] + struct.pack("<HHI", 0x28, 0x10, 1) + whole[place + 8 :])
    assert series_uid(tmp_path / "in" / "b.dcm") == "unreadable"
    (found,) = find_images(tmp_path / "in")
    with pytest.raises(DataError, match=r"b\.dcm"):
        next(found.frames())


@pytest.mark.parametrize("content", [b"", b"cut off", b"<html>503</html>" * 20])
def test_what_is_called_a_slice_and_is_none_spoils_its_series(tmp_path: Path, content: bytes) -> None:
    dicom(tmp_path / "in" / "a.dcm")
    (tmp_path / "in" / "b.dcm").write_bytes(content)
    (tmp_path / "in" / "notes").write_bytes(content)
    (found,) = find_images(tmp_path / "in")
    with pytest.raises(DataError, match=r"b\.dcm: not a readable DICOM file"):
        next(found.frames())


READ_WITH_LITTLE = """
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


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_bombs_fit_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(bomb((1024, 1024, 1024), 2**30))
    (tmp_path / "b.png").write_bytes(png_claiming(9000, 9000))
    dicom(tmp_path / "c.dcm", Rows=8000, Columns=8000)
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", READ_WITH_LITTLE, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
