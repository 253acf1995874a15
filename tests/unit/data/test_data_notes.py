"""What many files share is said once."""

from __future__ import annotations

import pytest

from maag.data.notes import merged_notes

TURNED = "its header has orientation LAS, its image's RAS; so: save it"


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ([], []),
        ([("a", f"a.nii: {TURNED}")], [f"a: a.nii: {TURNED}"]),
        ([("a", "5 pixels"), ("b", "6 pixels")], ["a: 5 pixels", "b: 6 pixels"]),
        ([("a", f"a.nii: {TURNED}"), ("b", f"b.nii: {TURNED}")], [f"2 cases, a.nii and b.nii: {TURNED}"]),
        ([("a", f"1/a.nii: {TURNED}"), ("a", f"2/a.nii: {TURNED}")], [f"1 case, 1/a.nii and 2/a.nii: {TURNED}"]),
        (
            [("a", "odd"), ("b", f"b.nii: {TURNED}"), ("b", "odd"), ("c", "odd")],
            ["3 cases, a and b among them: odd", f"b: b.nii: {TURNED}"],
        ),
    ],
)
def test_a_sentence_is_said_once_with_whom_it_concerns(notes: list[tuple[str, str]], said: list[str]) -> None:
    assert merged_notes(notes) == said
