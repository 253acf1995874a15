"""Notes shared by many files are reported once."""

from __future__ import annotations

import pytest

from maag.data.notes import merged_notes

NOTE = "its header has orientation LAS, its image's RAS; so: save it"


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([], []),
        ([("a", f"a.nii: {NOTE}")], [f"a: a.nii: {NOTE}"]),
        ([("a", "5 pixels"), ("b", "6 pixels")], ["a: 5 pixels", "b: 6 pixels"]),
        ([("a", f"a.nii: {NOTE}"), ("b", f"b.nii: {NOTE}")], [f"2 cases, a.nii and b.nii: {NOTE}"]),
        ([("a", f"1/a.nii: {NOTE}"), ("a", f"2/a.nii: {NOTE}")], [f"1 case, 1/a.nii and 2/a.nii: {NOTE}"]),
        (
            [("a", "odd"), ("b", f"b.nii: {NOTE}"), ("b", "odd"), ("c", "odd")],
            ["3 cases, a and b among them: odd", f"b: b.nii: {NOTE}"],
        ),
    ],
)
def test_equal_notes_are_merged_with_the_cases_they_concern(notes: list[tuple[str, str]], expected: list[str]) -> None:
    assert merged_notes(notes) == expected
