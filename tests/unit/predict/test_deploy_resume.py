"""What a resumed batch redoes, and what it keeps."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from threshold_runner import DATA, ThresholdRunner, read_ledger, run, write_volume

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from maag.errors import ConfigError
from maag.inference import Refinement
from maag.storage.local import LocalStore


def test_resume_skips_finished_volumes(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    run(scans, out, runner)
    calls = runner.calls
    assert run(scans, out, runner, resume=True) == Outcome(done=0, skipped=2, failed=())
    assert runner.calls == calls
    assert run(scans, out, runner).done == 2


@pytest.mark.parametrize("change", ["source", "model", "output", "earlier", "ledger"])
def test_resume_redoes_volumes_that_may_be_stale(scans: Path, out: Path, runner: ThresholdRunner, change: str) -> None:
    run(scans, out, runner)
    if change == "source":
        write_volume(scans / "a.nii.gz", 9)
    elif change == "output":
        (out / "a.nii.gz").unlink()
    elif change == "earlier":
        (out / "a.nii.gz").write_bytes(b"earlier")  # Older labels: the last ones were never stored.
        first = {
            **read_ledger(out)[0],
            "target": "a.nii.gz",
            "model": "m0",
            "target_md5": hashlib.md5(b"earlier").hexdigest(),
        }
        (out / "ledger.jsonl").write_text(f"{json.dumps(first)}\n{(out / 'ledger.jsonl').read_text()}")
    elif change == "ledger":
        lines = sorted((out / "ledger.jsonl").read_text().splitlines(keepends=True), key=lambda line: "a.nii" in line)
        (out / "ledger.jsonl").write_text(
            lines[0] + lines[1][:40]
        )  # Truncated by a crash before the labels were stored.
        (out / "a.nii.gz").unlink()
    again = run(scans, out, runner, model="m2" if change == "model" else "m1", resume=True)
    assert (again.done, again.skipped) == ((2, 0) if change == "model" else (1, 1))
    assert run(scans, out, runner, model="m2" if change == "model" else "m1", resume=True).skipped == 2


def test_resume_redoes_labels_made_before_pictures_had_a_fixed_extent(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    ppss = replace(DATA, dataset="ppss")
    predict([scans], Threads(runner), ppss, out, "m1")
    lines = read_ledger(out)
    assert {line["model"] for line in lines} == {"m1+own-extent"}
    (out / "ledger.jsonl").write_text("".join(f"{json.dumps({**line, 'model': 'm1'})}\n" for line in lines))
    again = predict([scans], Threads(runner), ppss, out, "m1", resume=True)
    assert (again.done, again.skipped) == (2, 0)
    assert predict([scans], Threads(runner), ppss, out, "m1", resume=True).skipped == 2


@pytest.mark.parametrize("size", [None, 20, 0])
def test_resume_keeps_manually_corrected_labels(
    scans: Path, out: Path, runner: ThresholdRunner, size: int | None
) -> None:
    run(scans, out, runner)
    work = (out / "deep" / "er" / "b.nii").read_bytes()[:size]
    (out / "a.nii.gz").write_bytes(work)
    for _ in range(2):
        again = run(scans, out, runner, resume=True)
        assert (again.done, again.skipped, again.kept) == (0, 2, 1)
        assert again.to_dict()["kept"] == 1
        assert (out / "a.nii.gz").read_bytes() == work
    assert run(scans, out, runner, model="m2", resume=True).done == 2
    assert (out / "a.nii.gz").read_bytes() != work


def test_resume_keeps_manual_labels_of_failed_volumes(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    whole = (scans / "a.nii.gz").read_bytes()
    (scans / "a.nii.gz").write_bytes(whole[:300])
    run(scans, out, runner)
    (out / "a.nii.gz").write_bytes(b"years of work")
    again = run(scans, out, runner, resume=True)
    assert (again.skipped, again.kept, again.failed) == (2, 1, ())
    assert (out / "a.nii.gz").read_bytes() == b"years of work"


def test_resume_keeps_manually_corrected_labels_after_their_source_could_not_be_read(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    """As when a network drive is away for one of the calls."""
    run(scans, out, runner)
    (out / "a.nii.gz").write_bytes(b"years of work")
    away = (scans / "a.nii.gz").rename(scans.parent / "away.nii.gz")
    (scans / "a.nii.gz").symlink_to("nowhere")
    (failed,) = run(scans, out, runner, resume=True).failed
    assert failed.source_version is None
    away.rename(scans / "a.nii.gz")
    assert run(scans, out, runner, resume=True) == Outcome(done=0, skipped=2, failed=(), kept=1)
    assert (out / "a.nii.gz").read_bytes() == b"years of work"


@pytest.mark.parametrize("older", [False, True])
def test_resume_restores_missing_probabilities(scans: Path, out: Path, runner: ThresholdRunner, older: bool) -> None:
    work = Work(probabilities=True)
    predict([scans], Threads(runner), DATA, out, "m1", work=work)
    place = out / "a_probabilities.nii.gz"
    for line in read_ledger(out):
        ((name, md5),) = line["side_files"].items()
        assert name == line["target"].replace(".nii.gz", ".nii").replace(".nii", "_probabilities.nii.gz")
        assert md5 == hashlib.md5((out / name).read_bytes()).hexdigest()
    if older:  # Older entries name no side files.
        lines = [{key: value for key, value in line.items() if key != "side_files"} for line in read_ledger(out)]
        (out / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).skipped == 2
    before = place.read_bytes()
    place.unlink()
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).done == 1
    assert place.read_bytes() == before
    place.unlink()
    (out / "a.nii.gz").write_bytes(b"years of work")
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).kept == 1


def test_resume_restores_missing_class_names(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    liver = replace(DATA, classes=("background", "fígado"))  # which the labels' header cannot hold
    predict([scans], Threads(runner), liver, out, "m1")
    assert predict([scans], Threads(runner), liver, out, "m1", True).skipped == 2
    (out / "a.json").unlink()
    assert predict([scans], Threads(runner), liver, out, "m1", True).done == 1
    assert (out / "a.json").exists()


class StoreWithoutMd5(LocalStore):
    """A store that knows no MD5s, like buckets for some objects that others stored."""

    def md5_of(self, key: str) -> None:
        return None


def test_labels_are_read_where_the_store_has_no_md5(
    scans: Path, out: Path, runner: ThresholdRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(scans, out, runner)
    monkeypatch.setattr("deploy.predicting.volume_processor.open_store", lambda place: StoreWithoutMd5(Path(place)))
    assert run(scans, out, runner, resume=True) == Outcome(done=0, skipped=2, failed=())
    (out / "a.nii.gz").write_bytes(b"years of work")
    assert run(scans, out, runner, resume=True).kept == 1
    (out / "a.nii.gz").unlink()
    assert run(scans, out, runner, resume=True).done == 1


def test_resume_retries_failures(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    whole = (scans / "a.nii.gz").read_bytes()
    (scans / "a.nii.gz").write_bytes(whole[:300])
    run(scans, out, runner)
    assert len(run(scans, out, runner, resume=True).failed) == 1
    (scans / "a.nii.gz").write_bytes(whole)
    assert run(scans, out, runner, resume=True).done == 1


def test_a_ledger_of_another_format_version_is_refused(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    run(scans, out, runner)
    text = (out / "ledger.jsonl").read_text().replace('"format_version": 3', '"format_version": 7')
    (out / "ledger.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="format_version 7"):
        run(scans, out, runner, resume=True)


def test_resume_redoes_volumes_when_options_change(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    run(scans, out, runner)
    work = Work(refinement=Refinement(flips=True))
    first = predict([scans], Threads(runner), DATA, out, "m1", True, work=work)
    second = predict([scans], Threads(runner), DATA, out, "m1", True, work=work)
    assert (first.done, second.done, second.skipped) == (2, 0, 2)
    assert {entry["model"] for entry in read_ledger(out)} == {"m1", "m1+flips"}
