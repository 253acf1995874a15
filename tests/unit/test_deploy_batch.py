"""Whole batches: what is written where, what is refused, and what a bad volume does to the others."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bright_runner import DATA, BrightIsForeground, ledger, run, tree, write_volume
from numpy.typing import NDArray

from deploy.predicting.attempt import decoded_at_once
from deploy.predicting.batch import plan, predict
from deploy.predicting.crew import Threads
from deploy.predicting.fleet import done_at_once
from deploy.predicting.job import Job, Task, Work
from deploy.predicting.ledger import FileLedger, read_finished
from maag.data.files.volume import load_labels
from maag.errors import ConfigError, MissingDataError
from maag.storage.local import LocalStore
from maag.train.launch.room import Room


def test_output_mirrors_input_and_input_stays(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    before = tree(scans)
    outcome = run(scans, out, runner)
    assert (outcome.done, outcome.skipped, outcome.failed) == (2, 0, ())
    assert set(tree(out)) == {"a.nii.gz", "deep/er/b.nii", "ledger.jsonl"}
    assert tree(scans) == before


def test_the_ledger_tells_what_each_class_but_background_fills(
    scans: Path, out: Path, runner: BrightIsForeground
) -> None:
    run(scans, out, runner)
    for line in ledger(out):
        assert line["volumes_ml"] == [{"bright": pytest.approx(2 * 4 * 5 * np.hypot(7, 0.1) / 1000)}]


def test_measures_take_the_newest_of_what_was_done_earlier_for_the_same_classes(
    scans: Path, out: Path, runner: BrightIsForeground
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


def test_labels_have_the_geometry_of_their_source(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    run(scans, out, runner)
    labels, _ = load_labels(out / "a.nii.gz", range(2))
    wanted = np.zeros((2, 15, 14), np.uint8)
    wanted[:, 5:9, 4:9] = 1
    np.testing.assert_array_equal(labels, wanted)
    source, written = nibabel.load(scans / "a.nii.gz"), nibabel.load(out / "a.nii.gz")
    np.testing.assert_array_equal(source.affine, written.affine)
    assert written.get_data_dtype() == np.uint8


def test_masks_and_scribbles_beside_an_image_are_no_images(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    for name in ("a_gt.nii.gz", "a_scribble.nii.gz", "lonely_gt.nii.gz"):
        write_volume(scans / name)
    assert run(scans, out, runner).done == 3
    assert {path.name for path in out.rglob("*.nii*")} == {"a.nii.gz", "b.nii", "lonely_gt.nii.gz"}


def test_ledger_has_a_line_for_each(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    run(scans, out, runner)
    lines = ledger(out)
    assert {line["target"] for line in lines} == {"a.nii.gz", "deep/er/b.nii"}
    for line in lines:
        assert (line["format_version"], line["error"], line["model"]) == (3, None, "m1")
        content = Path(line["source"]).read_bytes()
        assert line["source_version"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert line["target_md5"] == hashlib.md5((out / line["target"]).read_bytes()).hexdigest()
        assert line["seconds"] >= 0
        assert datetime.fromisoformat(line["finished_at"]).tzinfo is UTC


def test_one_bad_volume_does_not_stop_the_rest(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    (scans / "0-broken.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:400])
    outcome = run(scans, out, runner)
    assert (outcome.done, len(outcome.failed)) == (2, 1)
    assert "0-broken.nii.gz" in str(outcome.failed[0].error)
    (line,) = (line for line in ledger(out) if line["error"])
    assert (line["error"], line["target_md5"]) == (outcome.failed[0].error, None)
    assert not (out / "0-broken.nii.gz").exists()
    assert outcome.to_dict()["failures"][0]["source"].endswith("0-broken.nii.gz")


def test_links_to_files_that_are_not_there_are_failures_of_their_volumes(
    scans: Path, out: Path, runner: BrightIsForeground, tmp_path: Path
) -> None:
    """As DataLad leaves them for what it has not fetched."""
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
        f"cannot read {links['gone.jpg']}: a link to .git/annex/objects/gone, where nothing is; fetch what it stands "
        "for, or remove it"
    )
    assert "lead in a circle" in failures[str(links["circle.png"])]
    assert {line["source"] for line in ledger(out) if line["error"]} == set(failures)
    for given in (links["gone.nii.gz"], scans / "gone*.*[gz]"):
        assert "where nothing is" in str(
            predict([given], Threads(runner), DATA, tmp_path / "more", "m").failed[0].error
        )
    write_volume(scans / ".git" / "annex" / "objects" / "gone.nii.gz").rename(scans / ".git/annex/objects/gone")
    again = run(scans, out, runner, resume=True)
    assert (again.done, again.skipped, len(again.failed)) == (1, 2, 3)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that nobody can read is Linux's")
def test_a_file_that_may_not_be_read_stops_no_volume(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    (scans / "IM0001").symlink_to("/proc/self/mem")
    outcome = run(scans, out, runner)
    assert (outcome.done, len(outcome.failed)) == (2, 1)
    assert f"cannot read {scans / 'IM0001'}" in str(outcome.failed[0].error)


def test_an_output_without_a_name_is_refused(scans: Path) -> None:
    with pytest.raises(ConfigError, match="the output is empty"):
        plan([scans], "")


def test_a_bug_or_exhausted_memory_is_a_failure_of_its_volume(scans: Path, out: Path) -> None:
    class Exhausting(BrightIsForeground):
        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            if not self.calls:
                self.calls = 1
                raise MemoryError("no more")
            return super().__call__(images)

    outcome = run(scans, out, Exhausting())
    assert outcome.done == 1
    assert "MemoryError: no more" in str(outcome.failed[0].error)


def test_single_files_and_progress(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    seen: list[tuple[int, int]] = []
    inputs = [scans / "a.nii.gz", scans / "deep" / ".." / "deep" / "er" / "b.nii", scans / "a.nii.gz"]
    outcome = predict(inputs, Threads(runner), DATA, out, "m1", progress=lambda done, total: seen.append((done, total)))
    assert outcome.done == 2
    assert seen == [(1, 2), (2, 2)]
    assert set(tree(out)) == {"a.nii.gz", "b.nii", "ledger.jsonl"}


@pytest.mark.parametrize("place", ["", "deep", "new/folder"])
def test_nothing_is_written_into_the_input(scans: Path, runner: BrightIsForeground, place: str) -> None:
    before = tree(scans)
    with pytest.raises(ConfigError, match="lies in the input"):
        run(scans, scans / place, runner)
    with pytest.raises(ConfigError, match="lies in the input"):
        predict([scans / "a.nii.gz"], Threads(runner), DATA, scans, "m1")
    assert tree(scans) == before


def test_names_do_not_escape_through_links(scans: Path, out: Path, runner: BrightIsForeground, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "deep").symlink_to(elsewhere)
    outcome = run(scans, out, runner)
    assert outcome.done == 1
    assert "a link leads out of" in str(outcome.failed[0].error)
    assert not list(elsewhere.iterdir())


def test_a_dicom_segmentation_of_no_dicom_is_refused(scans: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match=r"--dicom-seg: no input is a DICOM series, the first is .*nii"):
        plan([scans], out, dicom_seg=True)


def test_two_sources_for_one_output_are_refused(tmp_path: Path, out: Path) -> None:
    first, second = write_volume(tmp_path / "one" / "a.nii.gz"), write_volume(tmp_path / "two" / "a.nii.gz")
    with pytest.raises(ConfigError, match="would both be written"):
        plan([first, second.parent], out)


def test_probabilities_have_places_of_their_own_too(tmp_path: Path, out: Path) -> None:
    for name in ("a.nii.gz", "a_probabilities.nii.gz"):
        write_volume(tmp_path / "in" / name)
    assert len(plan([tmp_path / "in"], out)) == 2
    with pytest.raises(ConfigError, match=r"would both be written to .*/a_probabilities\.nii\.gz"):
        plan([tmp_path / "in"], out, probabilities=True)


def test_the_output_is_none_of_what_a_pattern_or_a_list_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_volume(tmp_path / "work" / "one" / "sa_1.nii.gz")
    (tmp_path / "all.txt").write_text("work/one\n")
    monkeypatch.chdir(tmp_path)
    for given, out in (("work/**/sa_*.nii.gz", "work/labels"), ("all.txt", "work/one/labels"), ("work/o*", "work/out")):
        with pytest.raises(ConfigError, match="lies in the input"):
            plan([given], out)
    assert len(plan(["work/one/sa_*.nii.gz"], "work/labels")) == 1


@pytest.mark.parametrize(("name", "sentence"), [("nowhere", "no such file"), ("empty", "no NIfTI file")])
def test_nothing_to_do(tmp_path: Path, out: Path, runner: BrightIsForeground, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=sentence):
        predict([tmp_path / name], Threads(runner), DATA, out, "m1")
    assert not out.exists()


def test_a_file_of_another_kind(scans: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match="neither a NIfTI file nor a picture"):
        plan([scans / "notes.pdf"], out)


def test_a_gpu_is_given_more_volumes_at_once_than_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        for name in ("torch-cuda", "onnx-cuda", "tensorrt"):
            assert decoded_at_once(Named(name)) == expected  # type: ignore[arg-type]
        assert decoded_at_once(Named("onnx-cpu")) == 3  # type: ignore[arg-type]


def test_a_member_of_a_fleet_does_as_many_volumes_at_once_as_a_process_with_its_room(scans: Path, out: Path) -> None:
    job = Job(data=DATA, work=Work(), model_digest="m", out=str(out))
    task = Task(plan([scans], out)[0])
    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        assert done_at_once(task, job, Room(cpus=cores, gpus=1)) == expected
        assert done_at_once(task, job, Room(cpus=cores, gpus=0)) == 3
    for_stores = replace(job, out="s3://bucket/out")
    assert done_at_once(task, for_stores, Room(cpus=2, gpus=0)) == 8
