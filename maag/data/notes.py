"""What was odd in the files of cases, in sentences for people: one that many files share is said once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

_IN_FULL = 2
"""Files that are named, of those that share a sentence."""


def gathered(notes: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each thing that was noted, in the order in which it was first.

    Args:
        notes: case and note: `FILE: SENTENCE`, or a sentence about the case itself.
    """
    by_sentence: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for case, note in notes:
        file, colon, sentence = note.partition(": ")
        whose, what = (file, sentence) if colon else (case, note)
        by_sentence[what][case, whose] = f"{case}: {note}"
    return [
        next(iter(told.values())) if len(told) == 1 else f"{_names(list(told))}: {sentence}"
        for sentence, told in by_sentence.items()
    ]


def _names(told: list[tuple[str, str]]) -> str:
    cases = len({case for case, _ in told})
    named = " and ".join(whose for _, whose in told[:_IN_FULL])
    return f"{cases} case{'s' if cases > 1 else ''}, {named}{' among them' if len(told) > _IN_FULL else ''}"
