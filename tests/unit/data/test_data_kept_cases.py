"""Prepared cases are reused: after a bad case, after Ctrl-C and when a data set grows."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.errors import DataError, StorageError

Prepare = Callable[..., PreparedData]


@pytest.fixture
def prepare_again(data_dir: Path, tiny_config: Config, tmp_path: Path) -> Prepare:
    return lambda progress=None: prepare(data_dir, tiny_config.data, tmp_path / "cache", progress=progress)


def _images(data_dir: Path) -> list[Path]:
    return sorted(data_dir.rglob("*_frame??.nii.gz"))


def _make_unreadable(path: Path) -> None:
    """Overwrite the content with zeros, but keep the size and time that identify the file."""
    found = path.stat()
    path.write_bytes(bytes(found.st_size))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _stop_after(cases: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == cases:
            raise KeyboardInterrupt

    return progress


def _require_same(one: PreparedData, other: PreparedData) -> None:
    assert one.digest == other.digest
    assert [(case.case_id, case.start, case.stop, case.sha256) for case in one.cases] == [
        (case.case_id, case.start, case.stop, case.sha256) for case in other.cases
    ]
    for name in ("images", "scribbles", "masks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_repairing_a_bad_case_does_not_reread_the_others(
    data_dir: Path, prepare_again: Prepare, prepared: PreparedData
) -> None:
    bad, *good = _images(data_dir)
    intact = bad.read_bytes()
    bad.write_bytes(intact[:60])
    with pytest.raises(DataError, match=r"1 of 12 cases cannot be used; correct them .* \(only changed files"):
        prepare_again()
    bad.write_bytes(intact)
    for path in good:
        _make_unreadable(path)
    repaired = prepare_again()
    _require_same(repaired, prepared)
    assert [path for path in repaired.directory.parent.iterdir() if path.is_dir()] == [repaired.directory]


def test_repairing_bad_cases_one_by_one_leaves_one_copy_of_the_others(
    data_dir: Path, prepare_again: Prepare, prepared: PreparedData, tmp_path: Path
) -> None:
    first, second, *good = _images(data_dir)
    intact = {path: path.read_bytes() for path in (first, second)}
    for path in intact:
        path.write_bytes(intact[path][:60])
    with pytest.raises(DataError, match="2 of 12 cases"):
        prepare_again()
    for path in good:
        _make_unreadable(path)
    first.write_bytes(intact[first])
    with pytest.raises(DataError, match="1 of 12 cases"):
        prepare_again()
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
    second.write_bytes(intact[second])
    _require_same(prepare_again(), prepared)


def test_a_shorter_interrupted_attempt_does_not_discard_an_earlier_longer_one(
    data_dir: Path, prepare_again: Prepare
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_again(_stop_after(8))
    changed, *kept = _images(data_dir)[:8]
    changed.write_bytes(changed.read_bytes() + bytes(1))
    with pytest.raises(KeyboardInterrupt):
        prepare_again(_stop_after(3))
    for path in kept:
        _make_unreadable(path)
    assert len(prepare_again().cases) == 12


def test_a_completed_smaller_set_does_not_discard_the_other_cases_of_an_interrupted_larger_one(
    data_dir: Path, prepare_again: Prepare, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_again(_stop_after(8))
    _, *others = sorted({image.parent for image in _images(data_dir)})
    for folder in others:
        shutil.move(folder, tmp_path / folder.name)
    assert len(prepare_again().patients) == 1
    for folder in others:
        shutil.move(tmp_path / folder.name, folder)
    for path in _images(data_dir)[:8]:
        _make_unreadable(path)
    assert len(prepare_again().cases) == 12


def test_ctrl_c_keeps_the_completed_cases(data_dir: Path, prepare_again: Prepare, prepared: PreparedData) -> None:
    for cases in (5, 2, 9):  # the second time while the cases of the first are being reused
        with pytest.raises(KeyboardInterrupt):
            prepare_again(_stop_after(cases))
    for path in _images(data_dir)[:9]:
        _make_unreadable(path)
    resumed = prepare_again()
    _require_same(resumed, prepared)
    assert [path for path in resumed.directory.parent.iterdir() if path.is_dir()] == [resumed.directory]


def test_a_full_disk_keeps_the_completed_cases(
    data_dir: Path, prepare_again: Prepare, prepared: PreparedData, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The limit falls within the fifth case.
    limit = prepared.images[0].nbytes * prepared.cases[4].start + 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*the file would be larger than is allowed"):
            prepare_again()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (part,) = (tmp_path / "cache").glob(".acdc-*.part/images.raw")
    assert part.stat().st_size == limit - 1
    for path in _images(data_dir)[:4]:
        _make_unreadable(path)
    _require_same(prepare_again(), prepared)


def test_only_the_new_cases_of_a_grown_data_set_are_read(
    data_dir: Path, prepare_again: Prepare, prepared: PreparedData, tmp_path: Path
) -> None:
    new = _images(data_dir)[0].parent
    shutil.move(new, tmp_path / "aside")
    prepare_again()
    for path in _images(data_dir):
        _make_unreadable(path)
    shutil.move(tmp_path / "aside", new)
    _require_same(prepare_again(), prepared)


def test_a_changed_file_is_read_again(data_dir: Path, prepare_again: Prepare, prepared: PreparedData) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_again(_stop_after(6))
    first, second = _images(data_dir)[:2]
    shutil.copy(second, first)
    other = prepare_again()
    assert other.digest != prepared.digest
    own, copied = other.cases[:2]
    np.testing.assert_array_equal(other.images[own.start : own.stop], other.images[copied.start : copied.stop])


@pytest.mark.parametrize("name", ["images.raw", "index.json"])
def test_a_damaged_partial_set_is_discarded(
    prepare_again: Prepare, prepared: PreparedData, tmp_path: Path, name: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_again(_stop_after(6))
    (damaged,) = (tmp_path / "cache").glob(f".acdc-*.part/{name}")
    damaged.write_bytes(damaged.read_bytes()[:100])
    _require_same(prepare_again(), prepared)
