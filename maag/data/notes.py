"""Notes on the files of cases; one that several files share is reported once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

_IN_FULL = 2
"""Number of files that are named of those that share a sentence."""


def merged_notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each distinct note, in the order of first occurrence.

    Args:
        notes: case and note: `FILE: SENTENCE`, or a sentence about the case itself.
    """
    by_sentence: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for case, note in notes:
        file, colon, sentence = note.partition(": ")
        whose, what = (file, sentence) if colon else (case, note)
        by_sentence[what][case, whose] = f"{case}: {note}"
    return [
        next(iter(full.values())) if len(full) == 1 else f"{_names(list(full))}: {sentence}"
        for sentence, full in by_sentence.items()
    ]


def _names(files: list[tuple[str, str]]) -> str:
    cases = len({case for case, _ in files})
    named = " and ".join(file for _, file in files[:_IN_FULL])
    return f"{cases} case{'s' if cases > 1 else ''}, {named}{' among them' if len(files) > _IN_FULL else ''}"
