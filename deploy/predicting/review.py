"""`review.csv`: what to review first, volumes by the Dice that the model expects of its own labels."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence

from deploy.predicting.ledger import Entry
from maag.storage.store import Store

REVIEW = "review.csv"
KEYS = ("labels", "frame", "expected_dice", "least")
"""Its first columns."""


def write_review(out: Store, entries: Iterable[Entry], classes: Sequence[str]) -> int:
    """Write `review.csv`: a row per frame, frames without any label first, then by increasing expected Dice.

    `expected_dice` is the mean over the classes that were labelled, `least` the class with the lowest.

    Args:
        out: the output.
        entries: of volumes that are done; those from before expected Dice was recorded have no row.
        classes: of the model, background first.

    Returns:
        The number of rows. Raises StorageError.
    """
    found = [
        (statistics.fmean(expected.values()) if expected else None, entry.target, number, expected)
        for entry in entries
        for number, expected in enumerate(entry.expected_dice, start=1)
    ]
    found.sort(key=lambda row: (row[0] is not None, row[0] or 0.0, row[1:3]))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*KEYS, *classes[1:]])
    for mean, target, number, expected in found:
        least = min(expected, key=expected.__getitem__) if expected else ""
        rows.writerow([target, number, _number(mean), least, *(_number(expected.get(name)) for name in classes[1:])])
    out.write_bytes(REVIEW, text.getvalue().encode())
    return len(found)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
