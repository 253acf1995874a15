"""Labels replace only labels that maag wrote, according to the ledger, and no other file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from threshold_runner import DATA, ThresholdRunner, read_ledger, run, write_volume

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Job, Task, Work
from deploy.predicting.ledger import Entry, Origin
from deploy.predicting.overwrite_guard import OverwriteGuard
from deploy.predicting.volume_status import VolumeStatus
from maag.errors import ConfigError
from maag.storage.local import LocalStore

HEART = replace(DATA, classes=("background", "LV"))


def origin(scans: Path, name: str) -> Origin:
    return Origin(str(scans / name), "sha256:0")


@pytest.mark.parametrize("resume", [False, True])
def test_a_user_file_in_place_of_labels_fails_only_its_volume(
    scans: Path, out: Path, runner: ThresholdRunner, resume: bool
) -> None:
    out.mkdir()
    (out / "a.nii.gz").write_bytes(b"years of work")
    for _ in range(3):  # The ledger entry of the first refusal does not make the file ours.
        outcome = run(scans, out, runner, resume=resume)
        assert (out / "a.nii.gz").read_bytes() == b"years of work"
        (failed,) = outcome.failed
        assert (outcome.kept, outcome.done + outcome.skipped) == (0, 1)
        assert failed.error == (
            f"{scans / 'a.nii.gz'}: {out / 'a.nii.gz'} already exists and was not written by maag, "
            "according to the ledger; move it away, or choose another output folder"
        )
    (out / "a.nii.gz").unlink()
    assert run(scans, out, runner, resume=True) == Outcome(done=1, skipped=1, failed=())


def test_a_user_file_is_detected_before_the_volume_is_segmented(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    out.mkdir()
    (out / "a.nii.gz").write_bytes(b"years of work")
    predict([scans / "a.nii.gz"], Threads(runner), DATA, out, "m1")
    assert runner.calls == 0


def test_labels_written_by_maag_are_replaced(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    run(scans, out, runner)
    before = (out / "a.nii.gz").read_bytes()
    (out / "a.nii.gz").write_bytes(b"corrected")
    assert run(scans, out, runner, model="m2").done == 2
    assert (out / "a.nii.gz").read_bytes() == before


def test_manual_labels_of_a_failed_volume_are_not_replaced(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    whole = (scans / "a.nii.gz").read_bytes()
    (scans / "a.nii.gz").write_bytes(whole[:300])
    run(scans, out, runner)
    (scans / "a.nii.gz").write_bytes(whole)
    (out / "a.nii.gz").write_bytes(b"years of work")
    for resume in (False, True):
        assert len(run(scans, out, runner, resume=resume).failed) == 1
    assert (out / "a.nii.gz").read_bytes() == b"years of work"


def test_labels_written_meanwhile_by_another_job_are_replaced(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    """So are those of a lost worker whose volume a second one redoes."""

    class Overtaken(Threads):
        def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
            run(scans, out, ThresholdRunner())
            return super().__call__(job, tasks)

    assert predict([scans], Overtaken(runner), DATA, out, "m1", True) == Outcome(done=2, skipped=0, failed=())


class CountingStore(LocalStore):
    """A folder that counts reads of file contents, such as the ledger's."""

    reads = 0

    def read_bytes(self, key: str) -> bytes:
        self.reads += 1
        return super().read_bytes(key)


def test_the_ledger_is_not_read_again_for_each_user_file(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    """Thousands of reads, such as for a folder of masks, would take hours."""
    run(scans, out, runner)
    mine = [f"mine{number}.nii.gz" for number in range(20)]
    for name in mine:
        (out / name).write_bytes(b"years of work")
    store = CountingStore(out)
    guard = OverwriteGuard(store)
    for name in mine:
        with pytest.raises(ConfigError, match="already exists"):
            guard.require_overwritable(name, origin(scans, name))
    assert store.reads == 2
    write_volume(scans / "later.nii.gz")
    run(scans, out, runner, resume=True)
    guard.require_overwritable("later.nii.gz", origin(scans, "later.nii.gz"))
    (out / mine[0]).write_bytes(b"other work")
    with pytest.raises(ConfigError, match="already exists"):
        guard.require_overwritable(mine[0], origin(scans, mine[0]))


def test_a_user_file_in_place_of_probabilities_is_not_replaced(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    work = Work(probabilities=True)
    mine = out / "a_probabilities.nii.gz"
    run(scans, out, runner)
    mine.write_bytes(b"years of work")
    (failed,) = predict([scans], Threads(runner), DATA, out, "m1", work=work).failed
    assert f"{mine} already exists" in str(failed.error)
    assert mine.read_bytes() == b"years of work"
    mine.unlink()
    for model in ("m1", "m2"):
        assert predict([scans], Threads(runner), DATA, out, model, work=work).done == 2


@pytest.mark.parametrize("resume", [False, True])
def test_side_files_left_by_a_killed_job_are_replaced(
    scans: Path, out: Path, runner: ThresholdRunner, resume: bool
) -> None:
    """Even if the new ones differ, as with other options or on another GPU."""
    work = Work(probabilities=True)
    predict([scans], Threads(runner), DATA, out, "m1", work=work)
    begun = [line for line in read_ledger(out) if line["error"]]
    assert {line["error"].partition(": ")[2] for line in begun} == {
        "interrupted before its labels were stored; continue with --resume"
    }
    (out / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in begun))
    for labels in ("a.nii.gz", "deep/er/b.nii"):
        (out / labels).unlink()
    (out / "a_probabilities.nii.gz").write_bytes(b"of another GPU")
    assert predict([scans], Threads(runner), DATA, out, "m1", resume, work=work).done == 2
    again = read_ledger(out)[len(begun) :]
    assert [line["error"] for line in again] == [None, None]  # known side files are not recorded again
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).skipped == 2


def test_any_side_file_is_replaced_if_its_entry_names_none(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    predict([scans], Threads(runner), DATA, out, "m1", work=Work(probabilities=True))
    lines = [{key: value for key, value in line.items() if key != "side_files"} for line in read_ledger(out)]
    (out / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert predict([scans], Threads(runner), DATA, out, "m2", work=Work(probabilities=True)).done == 2


def test_measures_do_not_replace_a_user_table(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    predict([scans], Threads(runner), HEART, out, "m1")
    (out / "measures.csv").write_text("patient,age\na,70\n")
    with pytest.raises(ConfigError, match=r"measures\.csv already exists and was not written by maag"):
        predict([scans], Threads(runner), HEART, out, "m1", work=Work(measures=True))
    assert (out / "measures.csv").read_text() == "patient,age\na,70\n"


def test_measures_do_not_replace_a_file_without_a_ledger(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    out.mkdir()
    work = Work(measures=True)
    for content in ("mine", "patient,ed_frame,es_frame,LV_edv_ml\na,1,2,140\n"):
        (out / "measures.csv").write_text(content)
        with pytest.raises(ConfigError, match=r"measures\.csv already exists and was not written by maag"):
            predict([scans], Threads(runner), HEART, out, "m1", work=work)
    assert [path.name for path in out.iterdir()] == ["measures.csv"]
    (out / "measures.csv").unlink()
    for _ in range(2):
        assert predict([scans], Threads(runner), HEART, out, "m1", work=work).tables.patients_measured == 2


def test_labels_written_after_a_user_file_was_moved_away_are_ours(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    run(scans, out, runner)
    write_volume(scans / "c.nii.gz")
    (out / "c.nii.gz").write_bytes(b"years of work")
    (out / "d.nii.gz").write_bytes(b"years of work")
    guard = OverwriteGuard(LocalStore(out))
    for name in ("c.nii.gz", "d.nii.gz", "c.nii.gz"):  # so that both are known as the user's
        with pytest.raises(ConfigError):
            guard.require_overwritable(name, origin(scans, name))
    (out / "c.nii.gz").unlink()
    run(scans, out, runner, resume=True)  # another job labels it
    guard.require_overwritable("c.nii.gz", origin(scans, "c.nii.gz"))
    with pytest.raises(ConfigError):
        guard.require_overwritable("d.nii.gz", origin(scans, "d.nii.gz"))
