"""What was prepared once is not read again: after a bad case, Ctrl-C, and when a set grows."""

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
def again(data_dir: Path, tiny_config: Config, tmp_path: Path) -> Prepare:
    return lambda progress=None: prepare(data_dir, tiny_config.data, tmp_path / "cache", progress=progress)


@pytest.fixture
def undisturbed(phantom_dir: Path, tiny_config: Config, tmp_path: Path) -> PreparedData:
    return prepare(phantom_dir, tiny_config.data, tmp_path / "undisturbed")


def _images(data_dir: Path) -> list[Path]:
    return sorted(data_dir.rglob("*_frame??.nii.gz"))


def _make_unreadable(path: Path) -> None:
    """Whoever reads it fails; its size and time, by which files are known, stay as they are."""
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


def test_when_a_bad_case_is_mended_the_others_are_not_read_again(
    data_dir: Path, again: Prepare, undisturbed: PreparedData
) -> None:
    bad, *good = _images(data_dir)
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"1 of 12 cases cannot be used; correct them .* \(only changed files"):
        again()
    bad.write_bytes(whole)
    for path in good:
        _make_unreadable(path)
    mended = again()
    _require_same(mended, undisturbed)
    assert [path for path in mended.directory.parent.iterdir() if path.is_dir()] == [mended.directory]


def test_bad_cases_that_are_mended_one_by_one_leave_one_copy_of_the_others(
    data_dir: Path, again: Prepare, undisturbed: PreparedData, tmp_path: Path
) -> None:
    first, second, *good = _images(data_dir)
    whole = {path: path.read_bytes() for path in (first, second)}
    for path in whole:
        path.write_bytes(whole[path][:60])
    with pytest.raises(DataError, match="2 of 12 cases"):
        again()
    for path in good:
        _make_unreadable(path)
    first.write_bytes(whole[first])
    with pytest.raises(DataError, match="1 of 12 cases"):
        again()
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
    second.write_bytes(whole[second])
    _require_same(again(), undisturbed)


def test_what_was_begun_is_kept_while_what_is_begun_anew_has_less_of_it(data_dir: Path, again: Prepare) -> None:
    with pytest.raises(KeyboardInterrupt):
        again(_stop_after(8))
    changed, *kept = _images(data_dir)[:8]
    changed.write_bytes(changed.read_bytes() + bytes(1))
    with pytest.raises(KeyboardInterrupt):
        again(_stop_after(3))
    for path in kept:
        _make_unreadable(path)
    assert len(again().cases) == 12


def test_ctrl_c_keeps_the_cases_that_are_done(data_dir: Path, again: Prepare, undisturbed: PreparedData) -> None:
    for cases in (5, 2, 9):  # the second time while those of the first are taken over
        with pytest.raises(KeyboardInterrupt):
            again(_stop_after(cases))
    for path in _images(data_dir)[:9]:
        _make_unreadable(path)
    done = again()
    _require_same(done, undisturbed)
    assert [path for path in done.directory.parent.iterdir() if path.is_dir()] == [done.directory]


def test_a_full_disk_keeps_the_cases_that_are_done(
    data_dir: Path, again: Prepare, undisturbed: PreparedData, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # In the midst of the fifth case.
    room = undisturbed.images[0].nbytes * undisturbed.cases[4].start + 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*the file would be larger than is allowed"):
            again()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (part,) = (tmp_path / "cache").glob(".acdc-*.part/images.raw")
    assert part.stat().st_size == room - 1
    for path in _images(data_dir)[:4]:
        _make_unreadable(path)
    _require_same(again(), undisturbed)


def test_of_a_set_that_grew_only_the_new_cases_are_read(
    data_dir: Path, again: Prepare, undisturbed: PreparedData, tmp_path: Path
) -> None:
    new = _images(data_dir)[0].parent
    shutil.move(new, tmp_path / "aside")
    again()
    for path in _images(data_dir):
        _make_unreadable(path)
    shutil.move(tmp_path / "aside", new)
    _require_same(again(), undisturbed)


def test_what_changed_is_read_again(data_dir: Path, again: Prepare, undisturbed: PreparedData) -> None:
    with pytest.raises(KeyboardInterrupt):
        again(_stop_after(6))
    first, second = _images(data_dir)[:2]
    shutil.copy(second, first)
    other = again()
    assert other.digest != undisturbed.digest
    own, copied = other.cases[:2]
    np.testing.assert_array_equal(other.images[own.start : own.stop], other.images[copied.start : copied.stop])


@pytest.mark.parametrize("name", ["images.raw", "index.json"])
def test_a_damaged_part_is_as_none(again: Prepare, undisturbed: PreparedData, tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        again(_stop_after(6))
    (damaged,) = (tmp_path / "cache").glob(f".acdc-*.part/{name}")
    damaged.write_bytes(damaged.read_bytes()[:100])
    _require_same(again(), undisturbed)
