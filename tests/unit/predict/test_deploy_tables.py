"""What the tables of an output leave out, and which of them are from an earlier call."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from threshold_runner import DATA, ThresholdRunner, read_ledger, write_volume

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from deploy.predicting.tables import Tables, write_tables
from maag.cli.predict_summary import table_notes
from maag.storage.local import LocalStore
from maag.storage.store import StoredObject

HEART = replace(DATA, classes=("background", "LV"))
BOTH = Work(review=True, measures=True)
REVIEWED = Work(review=True)


def run(scans: Path, out: Path, work: Work, *, resume: bool = False) -> Outcome:
    return predict([scans], Threads(ThresholdRunner()), HEART, out, "m1", resume, work=work)


def reviewed_labels(out: Path) -> list[str]:
    with (out / "review.csv").open() as stream:
        return [row["labels"] for row in csv.DictReader(stream)]


def test_corrected_labels_are_not_reviewed(scans: Path, out: Path) -> None:
    assert run(scans, out, REVIEWED).tables.changed == 0
    (out / "a.nii.gz").write_bytes(b"years of work")
    again = run(scans, out, REVIEWED, resume=True)
    assert (again.kept, again.tables.changed, again.tables.frames_reviewed) == (1, 1, 1)
    assert reviewed_labels(out) == ["deep/er/b.nii"]
    anew = run(scans, out, REVIEWED)
    assert (anew.tables.changed, anew.tables.frames_reviewed) == (0, 2)


def test_corrected_labels_of_an_earlier_call_are_not_reviewed(scans: Path, out: Path) -> None:
    run(scans, out, Work())
    (out / "a.nii.gz").write_bytes(b"years of work")
    other = run(scans / "deep" / "er", out, REVIEWED)
    assert (other.kept, other.tables.changed) == (0, 1)
    assert sorted(reviewed_labels(out)) == ["b.nii", "deep/er/b.nii"]


class Bucket(LocalStore):
    """A folder that lists MD5s as versions, like S3 for most objects, and records all other requests."""

    lists = 0

    def __init__(self, root: Path, *, without: str) -> None:
        super().__init__(root)
        self._without = without
        self.md5_requests: list[str] = []

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        if not prefix:
            self.lists += 1
        for found in super().list(prefix):
            md5 = super().md5_of(found.key)
            yield replace(found, version=f"{md5}-2" if found.key == self._without or md5 is None else md5)

    def md5_of(self, key: str) -> str | None:
        self.md5_requests.append(key)
        return super().md5_of(key)


def test_md5s_known_from_a_listing_are_not_requested_one_by_one(scans: Path, out: Path) -> None:
    write_volume(scans / "c.nii.gz", 4)
    write_volume(scans / "parts.nii.gz", 5)
    run(scans, out, Work())
    (out / "c.nii.gz").write_bytes(b"years of work")
    store = Bucket(out, without="parts.nii.gz")
    tables = write_tables(store, REVIEWED, ["a.nii.gz"], HEART.classes, done=set(), kept=0)
    assert (tables.frames_reviewed, tables.changed) == (3, 1)
    assert sorted(store.md5_requests) == ["c.nii.gz", "parts.nii.gz"]
    assert store.lists == 1


@pytest.mark.parametrize("labels_exist", [True, False])
def test_earlier_labels_of_a_source_that_cannot_be_read_keep_their_rows(
    scans: Path, out: Path, labels_exist: bool
) -> None:
    run(scans, out, BOTH)
    (scans / "a.nii.gz").unlink()
    (scans / "a.nii.gz").symlink_to("nowhere")
    if not labels_exist:
        (out / "a.nii.gz").unlink()
    outcome = run(scans, out, BOTH)
    assert (outcome.done, len(outcome.failed)) == (1, 1)
    assert outcome.tables == Tables(patients_measured=1 + labels_exist, frames_reviewed=1 + labels_exist)


def test_labels_without_expected_dice_get_no_review_row_and_are_counted(scans: Path, out: Path) -> None:
    run(scans, out, Work())
    lines = [{key: value for key, value in line.items() if key != "expected_dice"} for line in read_ledger(out)]
    (out / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_volume(scans / "new.nii.gz", 5)
    tables = run(scans, out, REVIEWED, resume=True).tables
    assert (tables.without_expected_dice, tables.changed, tables.frames_reviewed) == (2, 0, 1)
    assert run(scans, out, REVIEWED).tables.without_expected_dice == 0


@pytest.mark.parametrize(
    ("work", "stale"), [(Work(), ("measures.csv", "review.csv")), (REVIEWED, ("measures.csv",)), (BOTH, ())]
)
def test_earlier_tables_are_reported_as_stale_once_labels_change(
    scans: Path, out: Path, work: Work, stale: tuple[str, ...]
) -> None:
    assert run(scans, out, BOTH).tables.stale == ()
    before = (out / "measures.csv").read_bytes()
    assert run(scans, out, work, resume=True).tables.stale == ()  # nothing was done
    assert run(scans, out, work).tables.stale == stale
    (out / "a.nii.gz").write_bytes(b"years of work")
    # Manual edits do not affect measures.csv, however often it is written.
    assert run(scans, out, work, resume=True).tables.stale == tuple(name for name in stale if name == "review.csv")
    assert (out / "measures.csv").read_bytes() == before


def test_a_user_table_is_not_reported_as_stale(scans: Path, out: Path) -> None:
    run(scans, out, Work())
    (out / "review.csv").write_text("reader,opinion\n")
    assert run(scans, out, Work()).tables.stale == ()


def test_the_outcome_as_json_includes_the_tables(scans: Path, out: Path) -> None:
    run(scans, out, BOTH)
    lines = read_ledger(out)
    (b_line,) = (line for line in lines if line["target"] == "deep/er/b.nii")
    del b_line["expected_dice"]  # as an earlier maag wrote it
    (out / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (out / "a.nii.gz").write_bytes(b"years of work")
    write_volume(scans / "new.nii.gz", 5)
    assert json.loads(json.dumps(run(scans, out, REVIEWED, resume=True).to_dict())) == {
        "done": 1,
        "skipped": 2,
        "kept": 1,
        "failed": 0,
        "passed_over": 0,
        "orientation_differs": 0,
        "orientation_unknown": 0,
        "failures": [],
        "tables": {
            "patients_measured": 0,
            "frames_reviewed": 1,
            "changed": 1,
            "without_expected_dice": 1,
            "stale": ["measures.csv"],
        },
    }


def test_each_problem_with_the_tables_has_a_note() -> None:
    assert table_notes(Tables(patients_measured=3, frames_reviewed=4)) == []
    assert table_notes(Tables(changed=1, without_expected_dice=2, stale=("review.csv",))) == [
        "review.csv leaves out 1 volume whose labels were edited since, as their quality is unknown",
        "review.csv leaves out 2 volumes segmented by an earlier version of maag, which recorded no expected Dice; "
        "segment them again, without --resume, to include them",
        "review.csv is from an earlier call and may be out of date; the same call with --resume --review writes it "
        "again",
    ]
    (both,) = table_notes(Tables(stale=("measures.csv", "review.csv")))
    assert both.startswith("measures.csv and review.csv are from an earlier call")
    assert "--resume --measures --review writes them again" in both
