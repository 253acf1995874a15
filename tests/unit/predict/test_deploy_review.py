"""Which volumes to review first."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from threshold_runner import DATA, ThresholdRunner, file_contents, read_ledger

from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from deploy.predicting.ledger import Entry
from deploy.predicting.review import write_review
from maag.cli.predict_summary import uncorrected_note
from maag.errors import ConfigError
from maag.storage.local import LocalStore

CLASSES = ("background", "RV", "LV")
REVIEWED = Work(review=True)


def entry(target: str, *expected: dict[str, float]) -> Entry:
    return Entry(
        source=target, target=target, source_version="sha256:0", model="m", target_md5="0", finished_at="", seconds=1,
        error=None, expected_dice=expected,
    )  # fmt: skip


def rows_in(out: Path) -> list[dict[str, str]]:
    with (out / "review.csv").open() as stream:
        return list(csv.DictReader(stream))


class HalfSure:
    """BrightIsForeground, with .8 instead of 1 and .2 instead of 0."""

    name = "half-sure"

    def __init__(self) -> None:
        self._bright = ThresholdRunner()

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return 0.2 + 0.6 * self._bright(images)


def test_frames_without_labels_come_first_then_the_lowest_expected_dice(tmp_path: Path) -> None:
    entries = [
        entry("good.nii.gz", {"RV": 0.91, "LV": 0.95}),
        entry("cine.nii.gz", {"RV": 0.9, "LV": 0.93}, {}, {"LV": 0.6, "RV": 0.62}),
        entry("earlier.nii.gz"),
        entry("half.nii.gz", {"LV": 0.7}),
    ]
    assert write_review(LocalStore(tmp_path), entries, CLASSES) == 5
    assert [tuple(row.values()) for row in rows_in(tmp_path)] == [
        ("cine.nii.gz", "2", "", "", "", ""),
        ("cine.nii.gz", "3", "0.610", "LV", "0.620", "0.600"),
        ("half.nii.gz", "1", "0.700", "LV", "", "0.700"),
        ("cine.nii.gz", "1", "0.915", "RV", "0.900", "0.930"),
        ("good.nii.gz", "1", "0.930", "RV", "0.910", "0.950"),
    ]


def test_the_ledger_records_the_expected_dice_of_each_volume(scans: Path, out: Path) -> None:
    predict([scans], Threads(HalfSure()), DATA, out, "m1")
    plain = [line["expected_dice"] for line in read_ledger(out)]
    assert all(0.3 < frame["bright"] < 0.8 for (frame,) in plain)
    assert "review.csv" not in file_contents(out)
    predict([scans], Threads(HalfSure()), DATA, out, "m1", shortfalls={"bright": 1.2})
    for (before,), (after,) in zip(plain, [line["expected_dice"] for line in read_ledger(out)[2:]], strict=True):
        assert after["bright"] == pytest.approx(1 - 1.2 * (1 - before["bright"]), abs=2e-4)


def test_a_later_call_also_reviews_earlier_labels(scans: Path, out: Path) -> None:
    predict([scans / "deep"], Threads(HalfSure()), DATA, out, "m1")
    outcome = predict([scans], Threads(ThresholdRunner()), DATA, out, "m2", work=REVIEWED)
    assert outcome.tables.frames_reviewed == 3
    assert {row["labels"] for row in rows_in(out)} == {"a.nii.gz", "deep/er/b.nii", "er/b.nii"}
    assert [row["expected_dice"] for row in rows_in(out)][1:] == ["1.000", "1.000"]
    (out / "er" / "b.nii").unlink()
    again = predict([scans], Threads(ThresholdRunner()), DATA, out, "m2", True, work=REVIEWED)
    assert (again.skipped, again.tables.frames_reviewed) == (2, 2)


def test_a_review_file_of_the_user_is_not_replaced(scans: Path, out: Path) -> None:
    out.mkdir()
    (out / "review.csv").write_text("reader,opinion\n")
    with pytest.raises(ConfigError, match=r"review\.csv"):
        predict([scans], Threads(HalfSure()), DATA, out, "m1", work=REVIEWED)
    assert (out / "review.csv").read_text() == "reader,opinion\n"


def test_volumes_of_other_classes_are_not_reviewed(scans: Path, out: Path) -> None:
    predict([scans / "deep"], Threads(HalfSure()), replace(DATA, classes=("background", "liver")), out, "m1")
    predict([scans / "a.nii.gz"], Threads(HalfSure()), DATA, out, "m2", work=REVIEWED)
    assert [row["labels"] for row in rows_in(out)] == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("num_networks", "shortfalls", "note"),
    [
        (1, {"RV": 1.2, "LV": 1.1}, None),
        (1, {"RV": 1.2}, "the expected Dice of LV, which its validation cases were too few to measure: "),
        (1, {}, "the expected Dice of RV, LV, which its validation cases were too few to measure: "),
        (1, None, "its expected Dice, as its training did not finish or"),
        (3, None, "its expected Dice, as it averages 3 networks"),
    ],
)
def test_values_without_a_correction_are_announced(
    num_networks: int, shortfalls: dict[str, float] | None, note: str | None
) -> None:
    found = uncorrected_note(("background", "RV", "LV"), num_networks, shortfalls)
    assert found is None if note is None else str(found).startswith(f"has no correction of {note}")
