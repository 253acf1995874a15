"""One volume: its ledger entry where a step fails, and what is refused before any work."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from background_runner import BackgroundRunner
from threshold_runner import DATA, ThresholdRunner, file_contents, read_ledger, write_volume

from deploy.inputs.images import NiftiImage
from deploy.inputs.source_kinds import Fetched, LocalSource
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Job, Task, Work
from deploy.predicting.ledger import Entry
from deploy.predicting.volume_processor import VolumeProcessor
from maag.errors import AccessDeniedError
from maag.storage.local import LocalStore


class CountingSource(LocalSource):
    """Counts its fetches."""

    fetches = 0

    def fetch(self, scratch: Path, version: str) -> Fetched:
        CountingSource.fetches += 1
        return super().fetch(scratch, version)


def attempt(tmp_path: Path, runner: ThresholdRunner, target: str) -> Entry:
    volume = write_volume(tmp_path / "scans" / "a.nii.gz")
    processor = VolumeProcessor(Job(data=DATA, work=Work(), model_digest="m", out=str(tmp_path / "out")), runner)
    (tmp_path / "out").mkdir(exist_ok=True)
    CountingSource.fetches = 0
    entry = processor.process(Task(CountingSource(NiftiImage(volume, Path("a.nii.gz")), target)))
    assert isinstance(entry, Entry)
    return entry


def test_the_ledger_entry_of_labels_that_cannot_be_stored_names_no_labels(
    tmp_path: Path, runner: ThresholdRunner
) -> None:
    (tmp_path / "out" / "a.nii.gz" / "in the way").mkdir(parents=True)
    entry = attempt(tmp_path, runner, "a.nii.gz")
    assert "cannot write" in str(entry.error)
    assert (entry.target_md5, entry.volumes_ml, entry.side_files) == (None, (), None)
    before, after = read_ledger(tmp_path / "out")  # the first is written before the labels are stored
    assert (before["error"], len(before["target_md5"])) == (None, 32)
    assert (after["error"], after["target_md5"]) == (entry.error, None)


@pytest.mark.parametrize("target", ["../../a.nii.gz", "/a.nii.gz", "b//a.nii.gz", "C:/a.nii.gz"])
def test_an_unsafe_target_is_refused_before_any_work(tmp_path: Path, runner: ThresholdRunner, target: str) -> None:
    entry = attempt(tmp_path, runner, target)
    assert f"the key {target!r} is refused" in str(entry.error)
    assert (runner.calls, CountingSource.fetches) == (0, 0)
    assert set(file_contents(tmp_path)) == {"scans/a.nii.gz", "out/ledger.jsonl"}


@pytest.mark.slow
def test_probabilities_of_a_volume_are_never_all_in_memory(tmp_path: Path) -> None:
    shape, classes = (128, 128, 200), 8
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "scans" / "a.nii")
    data = replace(DATA, classes=("background", *map(str, range(1, classes))), unlabelled_value=classes)
    tracemalloc.start()
    outcome = predict(
        [tmp_path / "scans"],
        Threads(BackgroundRunner(classes)),
        data,
        tmp_path / "out",
        "m",
        work=Work(probabilities=True),
    )
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.failed == ()
    assert nibabel.load(tmp_path / "out" / "a_probabilities.nii.gz").shape == (*shape, 1, classes)
    assert peak_bytes < 4 * classes * np.prod(shape)


def test_labels_are_stored_after_their_ledger_entry_and_side_files(
    tmp_path: Path, runner: ThresholdRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a process is killed, labels in their place mean that the volume is done."""
    out = tmp_path / "out"
    stored: list[tuple[str, list[str | None]]] = []

    class RecordingStore(LocalStore):
        def put(self, source: Path, key: str) -> None:
            lines = (out / "ledger.jsonl").read_text().splitlines()
            stored.append((key, [json.loads(line)["target_md5"] for line in lines]))
            super().put(source, key)

    out.mkdir()
    monkeypatch.setattr("deploy.predicting.volume_processor.open_store", lambda place: RecordingStore(Path(place)))
    volume = write_volume(tmp_path / "scans" / "a.nii.gz")
    job = Job(data=DATA, work=Work(probabilities=True), model_digest="m", out=str(out))
    entry = VolumeProcessor(job, runner).process(Task(LocalSource(NiftiImage(volume, Path("a.nii.gz")), "a.nii.gz")))
    assert isinstance(entry, Entry)
    assert entry.target_md5 == hashlib.md5((out / "a.nii.gz").read_bytes()).hexdigest()
    # The first entry names the side files to come and no labels: labels of the user's own stay the user's.
    assert stored == [("a_probabilities.nii.gz", [None]), ("a.nii.gz", [None, entry.target_md5])]


def test_an_output_without_write_access_ends_the_call(
    tmp_path: Path, runner: ThresholdRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnlyStore(LocalStore):
        def put(self, source: Path, key: str) -> None:
            raise AccessDeniedError(f"{key}: access denied")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("deploy.predicting.volume_processor.open_store", lambda place: ReadOnlyStore(Path(place)))
    with pytest.raises(AccessDeniedError):
        attempt(tmp_path, runner, "a.nii.gz")
