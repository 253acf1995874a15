"""Broken NIfTI files are refused in one sentence; unusual valid ones are read."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hostile_files import HEADER_OFFSETS, SHAPE, nifti_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.inputs.images import find_images
from maag.config.data import DataConfig
from maag.data.files.nifti_writing import save_labels
from maag.data.files.volume import Volume, load_volume, num_volumes
from maag.data.geometry import prepare_image
from maag.errors import ConfigError, DataError, MissingDataError, StorageError


def patched(field: str, struct_format: str, *values: float) -> bytes:
    content = bytearray(nifti_bytes())
    struct.pack_into(struct_format, content, HEADER_OFFSETS[field], *values)
    return bytes(content)


def rgb_nifti() -> bytes:
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
        (patched("sform", "<12f", np.nan, *[0] * 11), "not finite"),
        (nifti_bytes((7,)), "1-D of shape"),
        (nifti_bytes((7, 9, 3, 1, 3)), "5-D of shape"),
        (nifti_bytes((7, 9, 3, 2, 3)), "5-D of shape"),
        (nifti_bytes(dtype=np.complex64), "voxels of type complex64"),
        (rgb_nifti(), "colour .R, G, B"),
        (bytes(nib.AnalyzeImage(np.ones(SHAPE, np.int16), np.eye(4)).header.binaryblock) * 9, "not"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_broken_nifti_file_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, sentence: str, suffix: str
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content, mtime=0) if suffix.endswith("gz") else content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_volume(path, 0 if num_volumes(path) > 1 else None)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_big_endian_nifti_1_and_2_are_read_and_labelled(
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


def test_an_analyze_pair_is_not_accepted_as_an_image(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(np.ones(SHAPE, np.int16), np.eye(4)), tmp_path / "x.img")
    with pytest.raises(MissingDataError):
        find_images(tmp_path)
    with pytest.raises(ConfigError, match="neither a NIfTI file nor a picture"):
        find_images(tmp_path / "x.img")


def test_a_cine_with_a_trailing_axis_of_length_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cine.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes((7, 9, 3, 2, 1))))
    assert num_volumes(path) == 2
    assert load_volume(path, 1).shape == SHAPE[::-1]
    save_labels(tmp_path / "out.nii", np.zeros((2, *SHAPE[::-1]), np.uint8), path, ("background",))
    assert nib.load(tmp_path / "out.nii").shape == (*SHAPE, 2)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 543), st.integers(0, 255)), min_size=1, max_size=6),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    packed=st.booleans(),
    cine=st.booleans(),
)
def test_any_damaged_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    flips: list[tuple[int, int]],
    kind: type[nib.Nifti1Image],
    packed: bool,
    cine: bool,
) -> None:
    content = bytearray(nifti_bytes((7, 9, 3, 2) if cine else SHAPE, image_class=kind))
    for offset, value in flips:
        content[offset] = value
    path = tmp_path_factory.getbasetemp() / f"flipped{'.nii.gz' if packed else '.nii'}"
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
    try:
        count = num_volumes(path)
        volume = load_volume(path, 0 if count > 1 else None)
        save_labels(path.with_name("out.nii"), np.zeros((count, *volume.shape), np.uint8)[:1][0], path, ("a",))
    except (DataError, StorageError):
        return


def test_a_spacing_of_kilometres_is_refused() -> None:
    volume = Volume(np.ones((1, 2, 8, 8), np.float32), (1.0, 1e6, 1e6), np.eye(4))
    with pytest.raises(DataError, match=r"8 x 8 pixels of 1e\+06 x 1e\+06 mm are .* correct the spacing"):
        prepare_image(volume, DataConfig(classes=("background", "a"), spacing_mm=1.0))
