"""Whole batches: what is written where, and that a bad volume does not stop the others."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from threshold_runner import DATA, ThresholdRunner, file_contents, read_ledger, run, write_volume

from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from deploy.predicting.ledger import FileLedger, read_finished
from maag.data.files.volume import load_labels
from maag.storage.local import LocalStore


def test_output_mirrors_input_and_leaves_input_unchanged(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    before = file_contents(scans)
    outcome = run(scans, out, runner)
    assert (outcome.done, outcome.skipped, outcome.failed) == (2, 0, ())
    assert set(file_contents(out)) == {"a.nii.gz", "deep/er/b.nii", "ledger.jsonl"}
    assert file_contents(scans) == before


def test_the_ledger_records_the_volume_of_each_foreground_class(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    run(scans, out, runner)
    volumes_ml = [{"bright": pytest.approx(2 * 4 * 5 * np.hypot(7, 0.1) / 1000)}]
    assert [line["volumes_ml"] for line in read_ledger(out)] == [volumes_ml] * 2


def test_measures_include_the_newest_earlier_labels_of_the_same_classes(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    heart = replace(DATA, classes=("background", "LV"))
    predict([scans], Threads(runner), heart, out, "m1")
    earlier = FileLedger(out / "ledger.jsonl")
    (line, *_) = read_finished(LocalStore(out)).values()
    for target, second, volumes in (
        ("p.nii.gz", 1, ({"LV": 100.0}, {"LV": 50.0})),
        ("p.nii", 2, ({"LV": 90.0}, {"LV": 40.0})),
        ("q.nii.gz", 3, ({"liver": 1500.0},)),
    ):
        (out / target).touch()
        finished_at = f"2026-11-01T00:00:0{second}.000000+00:00"
        earlier.append(replace(line, target=target, finished_at=finished_at, volumes_ml=volumes))
    predict([scans], Threads(runner), heart, out, "m1", work=Work(measures=True))
    rows = {row["patient"]: row for row in csv.DictReader((out / "measures.csv").read_text().splitlines())}
    assert set(rows) == {"a", "deep/er/b", "p"}
    assert (rows["p"]["LV_edv_ml"], rows["p"]["LV_esv_ml"]) == ("90.0", "40.0")


def test_labels_have_the_geometry_of_their_source(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    run(scans, out, runner)
    labels, _ = load_labels(out / "a.nii.gz", range(2))
    wanted = np.zeros((2, 15, 14), np.uint8)
    wanted[:, 5:9, 4:9] = 1
    np.testing.assert_array_equal(labels, wanted)
    source, written = nibabel.load(scans / "a.nii.gz"), nibabel.load(out / "a.nii.gz")
    np.testing.assert_array_equal(source.affine, written.affine)
    assert written.get_data_dtype() == np.uint8


def test_the_ledger_has_an_entry_for_each_volume(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    run(scans, out, runner)
    lines = read_ledger(out)
    assert {line["target"] for line in lines} == {"a.nii.gz", "deep/er/b.nii"}
    for line in lines:
        assert (line["format_version"], line["error"], line["model"]) == (3, None, "m1")
        content = Path(line["source"]).read_bytes()
        assert line["source_version"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert line["target_md5"] == hashlib.md5((out / line["target"]).read_bytes()).hexdigest()
        assert line["seconds"] >= 0
        assert datetime.fromisoformat(line["finished_at"]).tzinfo is UTC


def test_one_bad_volume_does_not_stop_the_rest(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    (scans / "0-broken.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:400])
    outcome = run(scans, out, runner)
    assert (outcome.done, len(outcome.failed)) == (2, 1)
    assert "0-broken.nii.gz" in str(outcome.failed[0].error)
    (line,) = (line for line in read_ledger(out) if line["error"])
    assert (line["error"], line["target_md5"]) == (outcome.failed[0].error, None)
    assert not (out / "0-broken.nii.gz").exists()
    assert outcome.to_dict()["failures"][0]["source"].endswith("0-broken.nii.gz")


def test_broken_links_fail_only_their_own_volumes(
    scans: Path, out: Path, runner: ThresholdRunner, tmp_path: Path
) -> None:
    """As DataLad leaves them for files it has not fetched."""
    (scans / "series").mkdir()
    links = {name: scans / name for name in ("gone.nii.gz", "gone.jpg", "series/1.dcm", "circle.png")}
    for path in links.values():
        path.symlink_to(path.name if path.name == "circle.png" else ".git/annex/objects/gone")
    (scans / "gone.txt").symlink_to("nowhere")
    outcome = run(scans, out, runner)
    failures = {entry.source: str(entry.error) for entry in outcome.failed}
    assert outcome.done == 2
    assert set(failures) == {
        *map(str, (links["gone.nii.gz"], links["gone.jpg"], links["circle.png"], scans / "series"))
    }
    assert failures[str(links["gone.jpg"])] == (
        f"cannot read {links['gone.jpg']}: a broken link to .git/annex/objects/gone; fetch its target, or remove "
        "the link"
    )
    assert "links form a loop" in failures[str(links["circle.png"])]
    assert {line["source"] for line in read_ledger(out) if line["error"]} == set(failures)
    for given in (links["gone.nii.gz"], scans / "gone*.*[gz]"):
        assert "broken link" in str(predict([given], Threads(runner), DATA, tmp_path / "more", "m").failed[0].error)
    write_volume(scans / ".git" / "annex" / "objects" / "gone.nii.gz").rename(scans / ".git/annex/objects/gone")
    again = run(scans, out, runner, resume=True)
    assert (again.done, again.skipped, len(again.failed)) == (1, 2, 3)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that nobody can read is Linux's")
def test_an_unreadable_file_does_not_stop_other_volumes(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    (scans / "IM0001").symlink_to("/proc/self/mem")
    outcome = run(scans, out, runner)
    assert (outcome.done, len(outcome.failed)) == (2, 1)
    assert f"cannot read {scans / 'IM0001'}" in str(outcome.failed[0].error)


def test_an_unexpected_exception_fails_only_its_volume(scans: Path, out: Path) -> None:
    class OutOfMemoryOnce(ThresholdRunner):
        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            if not self.calls:
                self.calls = 1
                raise MemoryError("no more")
            return super().__call__(images)

    outcome = run(scans, out, OutOfMemoryOnce())
    assert outcome.done == 1
    assert "MemoryError: no more" in str(outcome.failed[0].error)


def test_repeated_input_files_are_segmented_once_and_progress_is_reported(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    seen: list[tuple[int, int]] = []
    inputs = [scans / "a.nii.gz", scans / "deep" / ".." / "deep" / "er" / "b.nii", scans / "a.nii.gz"]
    outcome = predict(inputs, Threads(runner), DATA, out, "m1", progress=lambda done, total: seen.append((done, total)))
    assert outcome.done == 2
    assert seen == [(1, 2), (2, 2)]
    assert set(file_contents(out)) == {"a.nii.gz", "b.nii", "ledger.jsonl"}
