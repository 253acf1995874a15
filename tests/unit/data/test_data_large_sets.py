"""Limits on the time and memory that large data sets take."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from phantom_datasets import config_of

from maag.data.cache.case_arrays import read_case
from maag.data.cache.preparing import prepare
from maag.data.cases import Case
from maag.data.catalog import find_cases, reader_of
from maag.data.files.label_files import holds_label
from maag.data.files.nifti import open_nifti
from maag.data.files.volume import as_labels
from maag.data.slices.draws import SliceSource
from maag.errors import DataError

_IGNORED = 2


def _write(path: Path, voxels: NDArray[np.generic], slope: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.set_slope_inter(slope, 0)
    image.to_filename(path)
    return path


def _nnunet_case(root: Path, labels: NDArray[np.uint8]) -> Path:
    """Write a data set of one case, a, in nnU-Net's layout; its label file."""
    label_numbers = {"background": 0, "organ": 1, "ignore": _IGNORED}
    root.joinpath("dataset.json").write_text(json.dumps({"labels": label_numbers}))
    _write(root / "imagesTr" / "a_0000.nii.gz", np.zeros(labels.shape, np.int16))
    return _write(root / "labelsTr" / "a.nii.gz", labels)


def _find_case(root: Path) -> Case:
    return find_cases(config_of("nnunet", root).data, root)[0]


def test_nnunet_reads_a_label_file_only_up_to_its_first_unlabelled_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (256, 256, 32), np.uint8)  # noise, so that the compressed file is long
    label_file = _nnunet_case(tmp_path, labels)
    label_file.write_bytes(label_file.read_bytes()[:-1000])
    case = _find_case(tmp_path)
    assert case.scribbles
    assert not case.masks


def test_nnunet_recognises_a_mask_without_loading_it_whole(tmp_path: Path) -> None:
    labels = np.zeros((256, 256, 128), np.uint8)
    _nnunet_case(tmp_path, labels)
    _find_case(tmp_path)
    tracemalloc.start()
    case = _find_case(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert case.masks
    assert peak < labels.nbytes / 2


@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_holds_label_finds_a_label_in_the_last_voxel(
    tmp_path: Path, dtype: DTypeLike, suffix: str, slope: float
) -> None:
    voxels = np.zeros((64, 64, 260), dtype)
    voxels[-1, -1, -1] = round(7 / slope)
    path = _write(tmp_path / f"a{suffix}", voxels, slope)
    assert holds_label(path, 7)
    assert not holds_label(path, 70)


def test_a_truncated_label_file_is_refused_when_its_end_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii.gz", np.zeros((64, 64, 260), np.uint8))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.nii\.gz: truncated or damaged"):
        holds_label(path, 1)


def test_reading_a_case_reads_headers_at_most_twice_and_voxels_once(tmp_path: Path) -> None:
    label_file = _nnunet_case(tmp_path, np.zeros((8, 8, 2), np.uint8))
    data, case = config_of("nnunet", tmp_path).data, _find_case(tmp_path)
    with _count_opens() as header:
        open_nifti(label_file)
    with _count_opens() as opened:
        read_case(case, reader_of("nnunet"), data)
    for path in (label_file, *case.images):
        assert opened[str(path)] <= 2 * header[str(label_file)] + 1


@contextmanager
def _count_opens() -> Iterator[Counter[str]]:
    """How often each file is opened inside the block."""
    counts: Counter[str] = Counter()
    watching = True

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            counts[str(arguments[0])] += 1

    sys.addaudithook(count)  # cannot be removed, but counts only inside the block
    try:
        yield counts
    finally:
        watching = False


def test_a_slice_source_is_shuffled_once_per_pass() -> None:
    slices = SliceSource(np.arange(200_000), seed=1, name="scribbled")
    slices.draw(0, 4)
    tracemalloc.start()
    slices.draw(4, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_slices_of_iterates_once_over_the_requested_patients(tmp_path: Path) -> None:
    class Requested(tuple[str, ...]):
        iterations = 0

        def __iter__(self) -> Iterator[str]:
            Requested.iterations += 1
            return super().__iter__()

    for name in "abc":
        _write(tmp_path / "images" / f"{name}.nii.gz", np.zeros((16, 16, 2), np.int16))
    prepared = prepare(tmp_path, config_of("folders", tmp_path).data, tmp_path / "cache")
    assert prepared.slices_of(Requested("ac")).tolist() == [0, 1, 4, 5]
    assert Requested.iterations == 1


def test_checking_uint8_labels_takes_little_memory_beyond_one_copy() -> None:
    labels = np.zeros((64, 256, 256), np.uint8)
    tracemalloc.start()
    as_labels(labels, {0}, Path("a.nii.gz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * labels.nbytes  # the returned copy, and the counts of one slice
