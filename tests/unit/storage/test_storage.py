"""A failed write keeps the existing files and leaves no others."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from maag.errors import MissingDataError, StorageError
from maag.storage import (
    building_directory,
    is_temporary,
    read_json,
    replacing,
    require_writable_directory,
    require_writable_place,
    storage_errors,
    write_json,
    write_text,
)


class Failure(Exception):
    pass


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(Failure), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("new")
        raise Failure
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_reader_sees_either_the_whole_old_file_or_the_whole_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_text(path, "old")
    with path.open() as early:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            temporary.write_text("half of the new one and the rest")
        assert early.read() == "old"
    assert path.read_text() == "half of the new one and the rest"
    assert names(path.parent) == {"file"}


def test_replacing_without_writing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"), replacing(tmp_path / "file"):
        pass
    assert not names(tmp_path)


def test_built_folder_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "folder"
    with building_directory(path) as temporary:
        (temporary / "one").write_text("1")
        assert not path.exists()
    assert names(path) == {"one"}
    assert names(path.parent) == {"folder"}


def test_failed_folder_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Failure), building_directory(tmp_path / "folder") as temporary:  # noqa: PT012
        (temporary / "one").write_text("1")
        raise Failure
    assert not names(tmp_path)


def test_folder_built_meanwhile_by_another_process_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with building_directory(path) as temporary:
        (temporary / "ours").write_text("")
        path.mkdir()
        (path / "theirs").write_text("")
    assert names(path) == {"theirs"}
    assert names(tmp_path) == {"folder"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_json_is_refused_and_the_old_file_is_kept(tmp_path: Path, value: float) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"dice": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"dice": value})
    assert read_json(path) == {"dice": 0.5}
    assert names(tmp_path) == {"value.json"}


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\xff\xfe\x00nonsense", b"\x89PNG\r\n\x1a\n"])
def test_invalid_json_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"cannot read {path}: it is not JSON (")
    assert "\n" not in str(caught.value)


def test_missing_json_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        read_json(tmp_path / "none.json")
    assert str(caught.value) == f"cannot read {tmp_path / 'none.json'}: No such file or directory"


def test_require_writable_directory_creates_an_empty_folder(tmp_path: Path) -> None:
    assert require_writable_directory(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not names(tmp_path / "a" / "b")


def test_require_writable_place_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for place in (tmp_path / "there", tmp_path / "a" / "b"):
        require_writable_place(place)
    assert names(tmp_path) == {"there"}
    assert not names(tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of this path is a file"):
        require_writable_place(tmp_path / "file" / "a" / "b")


def test_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for name in ("file", "file/run"):
        with pytest.raises(StorageError) as caught:
            require_writable_directory(tmp_path / name)
        assert str(caught.value).startswith(f"cannot write {tmp_path / name}: a ")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "cannot write out: the disk is full; free some space"),
        (errno.EROFS, "cannot write out: the file system is read-only; choose a place"),
        (errno.EIO, "cannot write out: as the system says"),
    ],
)
def test_os_errors_become_sentences(number: int, sentence: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(Path("out")):
        raise OSError(number, "as the system says")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("error", [MissingDataError("no scans"), StorageError("no space"), Failure("no luck")])
def test_other_errors_pass_unchanged(tmp_path: Path, error: Any) -> None:
    with pytest.raises(type(error)) as caught, replacing(tmp_path / "file"):
        raise error
    assert caught.value is error


def test_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut would leave an empty file under its name."""
    done: list[tuple[str, int]] = []
    rename = os.replace

    def fsync(descriptor: int) -> None:
        done.append(("synchronised", os.fstat(descriptor).st_size))

    def replace(one: Path, other: Path) -> None:
        done.append(("renamed", one.stat().st_size))
        rename(one, other)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "a", "whole")
    assert done == [("synchronised", 5), ("renamed", 5)]
    done.clear()
    with building_directory(tmp_path / "folder") as folder:
        (folder / "b").write_text("also")
    assert done == [("synchronised", 4)]


@pytest.mark.parametrize("letter", ["x", "é"])
def test_longest_file_name_can_be_written(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_text(path, "a")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_only_full_temporary_names_are_recognised() -> None:
    unfinished = ".a.nii.gz.0123abcd.tmp"
    others = (unfinished[1:], f"{unfinished}.nii", ".a.nii.gz.0123abc.tmp", ".a.nii.gz")
    assert is_temporary(unfinished)
    assert not any(map(is_temporary, others))


@pytest.mark.parametrize("name", [".", ".."])
def test_the_working_folder_is_not_replaced_by_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(StorageError, match="cannot be replaced; choose a new folder"), building_directory(Path(name)):
        pytest.fail("nothing may be written")
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
