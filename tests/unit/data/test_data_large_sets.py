"""What large data sets would make slow, or fill memory with."""

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
from native_phantoms import config_of
from numpy.typing import DTypeLike, NDArray

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
    """The label file of the one case, a, of a set in nnU-Net's layout."""
    named = {"background": 0, "organ": 1, "ignore": _IGNORED}
    root.joinpath("dataset.json").write_text(json.dumps({"labels": named}))
    _write(root / "imagesTr" / "a_0000.nii.gz", np.zeros(labels.shape, np.int16))
    return _write(root / "labelsTr" / "a.nii.gz", labels)


def _found(root: Path) -> Case:
    return find_cases(config_of("nnunet", root).data, root)[0]


def test_nnunet_looks_into_a_label_file_no_further_than_to_the_first_pixel_without_a_stroke(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (256, 256, 32), np.uint8)  # noise, so that its packed file is long
    label_file = _nnunet_case(tmp_path, labels)
    label_file.write_bytes(label_file.read_bytes()[:-1000])
    case = _found(tmp_path)
    assert case.scribbles
    assert not case.masks


def test_nnunet_never_holds_a_whole_mask_to_see_that_it_is_one(tmp_path: Path) -> None:
    labels = np.zeros((256, 256, 128), np.uint8)
    _nnunet_case(tmp_path, labels)
    _found(tmp_path)
    tracemalloc.start()
    case = _found(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert case.masks
    assert peak < labels.nbytes / 2


@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_a_label_is_found_wherever_it_stands(tmp_path: Path, dtype: DTypeLike, suffix: str, slope: float) -> None:
    voxels = np.zeros((64, 64, 260), dtype)
    voxels[-1, -1, -1] = round(7 / slope)
    path = _write(tmp_path / f"a{suffix}", voxels, slope)
    assert holds_label(path, 7)
    assert not holds_label(path, 70)


def test_a_label_file_that_ends_early_is_named_where_its_end_is_needed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii.gz", np.zeros((64, 64, 260), np.uint8))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.nii\.gz: truncated or damaged"):
        holds_label(path, 1)


def test_reading_a_case_opens_each_file_for_its_header_twice_and_once_for_its_voxels(tmp_path: Path) -> None:
    label_file = _nnunet_case(tmp_path, np.zeros((8, 8, 2), np.uint8))
    data, case = config_of("nnunet", tmp_path).data, _found(tmp_path)
    with _opened() as header:
        open_nifti(label_file)
    with _opened() as opened:
        read_case(case, reader_of("nnunet"), data)
    for path in (label_file, *case.images):
        assert opened[str(path)] <= 2 * header[str(label_file)] + 1


@contextmanager
def _opened() -> Iterator[Counter[str]]:
    """How often each file is opened meanwhile."""
    counts: Counter[str] = Counter()
    watching = True

    def count(event: str, facts: tuple[object, ...]) -> None:
        if watching and event == "open":
            counts[str(facts[0])] += 1

    sys.addaudithook(count)  # for good, but counting only here
    try:
        yield counts
    finally:
        watching = False


def test_a_stream_of_slices_is_shuffled_once_a_pass() -> None:
    slices = SliceSource(np.arange(200_000), seed=1, name="scribbled")
    slices.draw(0, 4)
    tracemalloc.start()
    slices.draw(4, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_slices_are_found_in_one_look_at_who_is_wanted(tmp_path: Path) -> None:
    class Wanted(tuple[str, ...]):
        looks = 0

        def __iter__(self) -> Iterator[str]:
            Wanted.looks += 1
            return super().__iter__()

    for name in "abc":
        _write(tmp_path / "images" / f"{name}.nii.gz", np.zeros((16, 16, 2), np.int16))
    prepared = prepare(tmp_path, config_of("folders", tmp_path).data, tmp_path / "cache")
    assert prepared.slices_of(Wanted("ac")).tolist() == [0, 1, 4, 5]
    assert Wanted.looks == 1


def test_labels_of_eight_bits_are_not_compared_with_themselves() -> None:
    labels = np.zeros((64, 256, 256), np.uint8)
    tracemalloc.start()
    as_labels(labels, {0}, Path("a.nii.gz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * labels.nbytes  # of the copy that it returns, and of a slice's counts
