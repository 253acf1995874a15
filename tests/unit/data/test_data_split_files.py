"""Splits as files: valid ones survive the round trip, edited and invalid ones are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from maag.data.splits import PARTS, Split
from maag.errors import DataError, SplitError
from maag.train.folder import read_split

SPLIT = Split(
    scheme="mine", scribbled=("a", "b"), dense=("c",), unlabelled=("d",), shapes=("e",), val=("f",), test=("g",)
)


def test_the_digest_covers_every_part() -> None:
    digests = {Split(scheme="x", **{part: ("a",)}).digest for part in PARTS}
    assert len(digests) == len(PARTS)


def test_a_patient_in_any_two_parts_is_refused() -> None:
    for one, other in combinations(PARTS, 2):
        with pytest.raises(SplitError, match=rf"a is in {one} and in {other}"):
            Split(scheme="x", **{one: ("a",), other: ("a", "b")})


def test_the_error_for_a_patient_in_two_parts_names_split_and_parts() -> None:
    with pytest.raises(SplitError, match=r"split mine: b is in scribbled and in val; .* remove it from one of them"):
        Split(scheme="mine", scribbled=("a", "b"), shapes=("c",), val=("b",), test=())


def test_a_split_survives_serialisation() -> None:
    assert Split.from_dict(SPLIT.to_dict()) == SPLIT


def test_an_edited_split_file_is_refused() -> None:
    plain = SPLIT.to_dict()
    plain["val"].pop()
    with pytest.raises(DataError, match="does not match its patients"):
        Split.from_dict(plain)
    with pytest.raises(SplitError, match="is in scribbled and in shapes"):
        Split.from_dict({**plain, "shapes": plain["scribbled"]})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 2}, "format_version 2 is unknown"),
        ({"scheme": None}, 'scheme is null; it is a name, such as "random-0"'),
        ({"val": None}, "val is null; each part is a list"),
        ({"test": "patient005"}, 'test is "patient005"; each part is a list of patient names, such as'),
        ({"dense": ["a", 1]}, r'dense is \["a", 1\]; each part'),
    ],
)
def test_an_invalid_split_file_is_refused(change: dict[str, object], sentence: str) -> None:
    plain = SPLIT.to_dict()
    del plain["digest"]
    with pytest.raises(DataError, match=rf"^split\.json: {sentence}"):
        Split.from_dict({**plain, **change})
    del plain["shapes"]
    with pytest.raises(DataError, match="'shapes' is missing; a split has scheme, scribbled"):
        Split.from_dict(plain)


def test_a_file_with_another_json_value_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('["patient001"]')
    with pytest.raises(DataError, match=r"split\.json: no JSON object, so it is no split"):
        read_split(tmp_path / "split.json", [])


def test_the_digest_covers_patients_by_part_but_not_their_order() -> None:
    split = Split(scheme="a", scribbled=("a", "b"), shapes=("c",), val=("d",), test=())
    assert replace(split, scheme="b", scribbled=("b", "a")).digest == split.digest
    assert replace(split, shapes=(), test=("c",)).digest != split.digest
