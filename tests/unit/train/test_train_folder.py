"""Splits whose patients are missing from the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.data.splits import Split
from maag.errors import SplitError
from maag.storage import write_json
from maag.train.folder import read_split

SPLIT = Split(scheme="ours", scribbled=("a",), dense=("b",), unlabelled=("c",), shapes=("d",), val=("e",), test=("f",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json(tmp_path / "split.json", SPLIT.to_dict())
    return tmp_path / "split.json"


@pytest.mark.parametrize("absent", ["a", "b", "c", "d", "e"])
def test_a_split_with_missing_patients_is_refused(path: Path, absent: str) -> None:
    with pytest.raises(SplitError, match=rf"1 of its patients are not in the data, the first is {absent};"):
        read_split(path, set("abcdef") - {absent})


def test_training_does_not_need_the_test_patients(path: Path) -> None:
    assert read_split(path, "abcde") == SPLIT


def test_parts_without_a_use_are_not_needed(path: Path) -> None:
    assert read_split(path, "abce", unused=("shapes", "test")) == SPLIT
    with pytest.raises(SplitError, match="the first is e;"):
        read_split(path, "abcd", unused=("shapes", "test"))
