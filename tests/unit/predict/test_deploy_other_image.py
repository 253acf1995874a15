"""Labels never replace those of another image that an earlier call wrote to the same output."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folder_bucket import serve_as_bucket
from numpy.typing import NDArray
from PIL import Image
from threshold_runner import DATA, ThresholdRunner, file_contents, read_ledger, run, write_volume

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from maag.data.phantoms.dicom_files import save_slice


def write_picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 99, (16, 16), np.uint8)).save(path)
    return path


def write_series(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 99, (2, 16, 16)).astype(np.uint16)
    for number in range(2):
        position = (0.0, 0.0, 5.0 * number)
        path = folder / f"{number}.dcm"
        save_slice(
            path, pixels[number], spacing_mm=1, thickness_mm=5, position=position, series=str(seed), number=number
        )
    return folder


WRITERS: dict[str, Callable[[Path, int], Path]] = {
    "a.nii": write_volume,
    "a.nii.gz": write_volume,
    "a.png": write_picture,
    "a.jpg": write_picture,
    "a": write_series,
}


def segment(given: str | Path, out: Path, *, model: str = "m1", resume: bool = False) -> Outcome:
    return predict([given], Threads(ThresholdRunner()), DATA, out, model, resume)


@pytest.mark.parametrize(
    ("earlier", "later", "kept", "reason"),
    [
        ("a.nii.gz", "a.nii.gz", "a.nii.gz", "replace them"),
        ("a.nii", "a.nii.gz", "a.nii", "count as the same case"),
        ("a.nii.gz", "a.nii", "a.nii.gz", "count as the same case"),
        ("a.png", "a.jpg", "a.png", "replace them"),
        ("a", "a", "a.nii.gz", "replace them"),
        ("a", "a.nii.gz", "a.nii.gz", "replace them"),
    ],
)
@pytest.mark.parametrize(("bucket", "resume"), [(False, False), (True, True)])
def test_labels_of_another_image_fail_the_volume_and_stay(
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    earlier: str,
    later: str,
    kept: str,
    reason: str,
    bucket: bool,
    resume: bool,
) -> None:
    serve_as_bucket(monkeypatch, tmp_path)
    one, other = WRITERS[earlier](tmp_path / "one" / earlier, 1), WRITERS[later](tmp_path / "other" / later, 2)
    first, second = (f"s3://bkt/{path.relative_to(tmp_path)}" if bucket else str(path) for path in (one, other))
    assert segment(first, out).done == 1
    before = {name: content for name, content in file_contents(out).items() if name != "ledger.jsonl"}
    for _ in range(2):
        (failed,) = segment(second, out, resume=resume).failed
        assert failed.error == (
            f"{out / kept} contains labels of {first}, according to the ledger, and those of {second} would {reason}; "
            "move that file away, or choose another output folder"
        )
        assert {name: content for name, content in file_contents(out).items() if name != "ledger.jsonl"} == before
    assert segment(first, out, resume=True).skipped == 1  # the refusals do not make it stale
    for name in before:
        (out / name).unlink()
    assert segment(second, out, resume=resume).done == 1
    assert len(segment(first, out, resume=True).failed) == 1


def test_labels_of_another_image_that_a_job_stored_meanwhile_stay(tmp_path: Path, out: Path) -> None:
    """As when two jobs on folders with the same names start at the same time."""
    one, other = (write_volume(tmp_path / name / "a.nii.gz", number) for number, name in enumerate(("one", "other")))

    class Overtaken(ThresholdRunner):
        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            if not self.calls:
                segment(other, out)
            return super().__call__(images)

    (failed,) = predict([one], Threads(Overtaken()), DATA, out, "m1").failed
    assert f"contains labels of {other}, according to the ledger, and those of {one} would" in str(failed.error)
    assert segment(other, out, resume=True).skipped == 1


def test_an_image_that_was_moved_or_changed_replaces_its_own_labels(tmp_path: Path, out: Path) -> None:
    place = write_volume(tmp_path / "scans" / "a.nii.gz", 1)
    (tmp_path / "link").symlink_to("scans")
    assert segment(place, out).done == 1
    moved = Path(shutil.copy(place, tmp_path))
    assert segment(moved, out, model="m2").done == 1
    write_volume(moved, 2)
    assert segment(moved, out).done == 1
    write_volume(place, 3)
    assert len(segment(place, out).failed) == 1
    shutil.copy(moved, place)
    assert segment(place, out, model="m2").done == 1
    write_volume(place, 4)
    assert segment(tmp_path / "link" / "a.nii.gz", out).done == 1


def test_relative_paths_from_two_folders_are_different_images(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("p1", "p2")):
        write_volume(tmp_path / name / "a.nii.gz", number)
    monkeypatch.chdir(tmp_path / "p1")
    assert segment("a.nii.gz", out).done == 1
    monkeypatch.chdir(tmp_path / "p2")
    (failed,) = segment("a.nii.gz", out).failed
    assert f"labels of {tmp_path / 'p1' / 'a.nii.gz'}, " in str(failed.error)
    assert f"those of {tmp_path / 'p2' / 'a.nii.gz'} would" in str(failed.error)
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / "p1" / "a.nii.gz", 5)
    assert segment(os.path.join("p1", "a.nii.gz"), out).done == 1


def test_lines_of_earlier_versions_with_relative_paths_name_the_same_image(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = write_volume(tmp_path / "scans" / "a.nii.gz", 1)
    segment(place, out)
    (line,) = read_ledger(out)
    assert line["source"] == str(place)
    (out / "ledger.jsonl").write_text(json.dumps({**line, "source": "scans/a.nii.gz"}) + "\n")
    write_volume(place, 2)
    assert segment(place, out).done == 1


def test_refused_labels_leave_the_rows_of_those_that_stay(tmp_path: Path, scans: Path, out: Path) -> None:
    run(scans, out, ThresholdRunner())
    other = write_volume(tmp_path / "other" / "a.nii.gz", 7)
    outcome = predict([other], Threads(ThresholdRunner()), DATA, out, "m1", work=Work(review=True))
    assert (len(outcome.failed), outcome.tables.frames_reviewed) == (1, 2)
