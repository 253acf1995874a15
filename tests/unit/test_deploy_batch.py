from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.attempt import Work, decoded_at_once
from deploy.batch import Outcome, plan, predict
from deploy.crew import Threads
from maag.config.schema import DataConfig
from maag.data.volume import load_labels
from maag.errors import ConfigError, MissingDataError
from maag.inference import Refinement
from maag.storage.local import LocalStore

DATA = DataConfig(classes=("background", "bright"), size_px=(16, 16), spacing_mm=1.0)


class BrightIsForeground:
    name = "bright"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        bright = (images[:, 0] > (images.min() + images.max()) / 2).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


@pytest.fixture
def runner() -> BrightIsForeground:
    return BrightIsForeground()


def write_volume(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).normal(10, 1, (14, 15, 2)).astype(np.float32)
    voxels[4:9, 5:9] += 100
    affine = np.array([[-1.0, 0, 0, 30], [0, 1.0, 0.1, -20], [0, 0, 7.0, 5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write_volume(folder / "a.nii.gz", 1)
    write_volume(folder / "deep" / "er" / "b.nii", 2)
    write_volume(folder / "deep" / "._b.nii.gz", 3)
    (folder / "notes.txt").write_text("not a volume")
    (folder / "notes.pdf").write_text("not a volume")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(scans: Path, out: Path, runner: BrightIsForeground, *, model: str = "m1", resume: bool = False) -> Outcome:
    return predict([scans], Threads(runner), DATA, out, model, resume)


def ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_output_mirrors_input_and_input_stays(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    before = tree(scans)
    outcome = run(scans, out, runner)
    assert (outcome.done, outcome.skipped, outcome.failed) == (2, 0, ())
    assert set(tree(out)) == {"a.nii.gz", "deep/er/b.nii", "ledger.jsonl"}
    assert tree(scans) == before


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


def test_resume_skips_what_is_done(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    run(scans, out, runner)
    calls = runner.calls
    assert run(scans, out, runner, resume=True) == Outcome(done=0, skipped=2, failed=())
    assert runner.calls == calls
    assert run(scans, out, runner).done == 2


@pytest.mark.parametrize("change", ["source", "model", "output", "earlier", "ledger"])
def test_resume_does_again_what_may_be_stale(scans: Path, out: Path, runner: BrightIsForeground, change: str) -> None:
    run(scans, out, runner)
    if change == "source":
        write_volume(scans / "a.nii.gz", 9)
    elif change == "output":
        (out / "a.nii.gz").unlink()
    elif change == "earlier":
        (out / "a.nii.gz").write_bytes(b"earlier")  # Written before, and the last labels did not get into their place.
        first = {
            **ledger(out)[0],
            "target": "a.nii.gz",
            "model": "m0",
            "target_md5": hashlib.md5(b"earlier").hexdigest(),
        }
        (out / "ledger.jsonl").write_text(f"{json.dumps(first)}\n{(out / 'ledger.jsonl').read_text()}")
    elif change == "ledger":
        lines = sorted((out / "ledger.jsonl").read_text().splitlines(keepends=True), key=lambda line: "a.nii" in line)
        (out / "ledger.jsonl").write_text(lines[0] + lines[1][:40])  # Cut off by a crash.
    again = run(scans, out, runner, model="m2" if change == "model" else "m1", resume=True)
    assert (again.done, again.skipped) == ((2, 0) if change == "model" else (1, 1))
    assert run(scans, out, runner, model="m2" if change == "model" else "m1", resume=True).skipped == 2


@pytest.mark.parametrize("size", [None, 20, 0])
def test_resume_keeps_what_somebody_has_corrected(
    scans: Path, out: Path, runner: BrightIsForeground, size: int | None
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


def test_resume_keeps_what_somebody_has_drawn_where_maag_failed(
    scans: Path, out: Path, runner: BrightIsForeground
) -> None:
    whole = (scans / "a.nii.gz").read_bytes()
    (scans / "a.nii.gz").write_bytes(whole[:300])
    run(scans, out, runner)
    (out / "a.nii.gz").write_bytes(b"years of work")
    again = run(scans, out, runner, resume=True)
    assert (again.skipped, again.kept, again.failed) == (2, 1, ())
    assert (out / "a.nii.gz").read_bytes() == b"years of work"


@pytest.mark.parametrize("older", [False, True])
def test_resume_makes_again_the_probabilities_that_are_gone(
    scans: Path, out: Path, runner: BrightIsForeground, older: bool
) -> None:
    work = Work(probabilities=True)
    predict([scans], Threads(runner), DATA, out, "m1", work=work)
    place = out / "a_probabilities.nii.gz"
    for line in ledger(out):
        ((name, md5),) = line["side_files"].items()
        assert name == line["target"].replace(".nii.gz", ".nii").replace(".nii", "_probabilities.nii.gz")
        assert md5 == hashlib.md5((out / name).read_bytes()).hexdigest()
    if older:  # Their lines say nothing of side files.
        lines = [{key: value for key, value in line.items() if key != "side_files"} for line in ledger(out)]
        (out / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).skipped == 2
    before = place.read_bytes()
    place.unlink()
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).done == 1
    assert place.read_bytes() == before
    place.unlink()
    (out / "a.nii.gz").write_bytes(b"years of work")
    assert predict([scans], Threads(runner), DATA, out, "m1", True, work=work).kept == 1


class Forgetful(LocalStore):
    """A store that knows no MD5s, as buckets do of some objects that others put there."""

    def md5_of(self, key: str) -> None:
        return None


def test_what_a_store_knows_no_md5_of_is_read(
    scans: Path, out: Path, runner: BrightIsForeground, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(scans, out, runner)
    monkeypatch.setattr("deploy.attempt.open_store", lambda place: Forgetful(Path(place)))
    assert run(scans, out, runner, resume=True) == Outcome(done=0, skipped=2, failed=())
    (out / "a.nii.gz").write_bytes(b"years of work")
    assert run(scans, out, runner, resume=True).kept == 1
    (out / "a.nii.gz").unlink()
    assert run(scans, out, runner, resume=True).done == 1


def test_resume_tries_failures_again(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    whole = (scans / "a.nii.gz").read_bytes()
    (scans / "a.nii.gz").write_bytes(whole[:300])
    run(scans, out, runner)
    assert len(run(scans, out, runner, resume=True).failed) == 1
    (scans / "a.nii.gz").write_bytes(whole)
    assert run(scans, out, runner, resume=True).done == 1


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


@pytest.mark.parametrize("other", ["a.nii", "a_probabilities.nii.gz"])
def test_probabilities_have_places_of_their_own_too(tmp_path: Path, out: Path, other: str) -> None:
    for name in ("a.nii.gz", other):
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


def test_a_ledger_of_another_version(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    run(scans, out, runner)
    text = (out / "ledger.jsonl").read_text().replace('"format_version": 3', '"format_version": 7')
    (out / "ledger.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="format_version 7"):
        run(scans, out, runner, resume=True)


def write_cine(path: Path, radii: list[int]) -> Path:
    """A bright square in each of two slices, as wide in each frame as said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).normal(10, 1, (16, 16, 2, len(radii))).astype(np.float32)
    for frame, radius in enumerate(radii):
        voxels[8 - radius : 8 + radius, 8 - radius : 8 + radius, :, frame] += 100
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0])), path)
    return path


HEART = DataConfig(classes=("background", "LV"), size_px=(16, 16), spacing_mm=1.0)


def test_all_frames_of_a_cine_are_segmented_and_measured(tmp_path: Path, runner: BrightIsForeground) -> None:
    source = write_cine(tmp_path / "in" / "patient007.nii.gz", [3, 5, 2])
    work = Work(measures=True, probabilities=True)
    outcome = predict([source], Threads(runner), HEART, tmp_path / "out", "m1", work=work)
    assert (outcome.done, outcome.patients_measured) == (1, 1)
    image = nibabel.load(tmp_path / "out" / "patient007.nii.gz")
    assert image.shape == (16, 16, 2, 3)
    assert image.header.get_data_dtype() == np.uint8
    assert [int(np.asarray(image.dataobj)[..., frame].sum()) for frame in range(3)] == [2 * 36, 2 * 100, 2 * 16]
    probabilities = nibabel.load(tmp_path / "out" / "patient007_probabilities.nii.gz")
    assert probabilities.shape == (16, 16, 2, 3, 2)
    np.testing.assert_array_equal(np.asarray(probabilities.dataobj).argmax(axis=4), np.asarray(image.dataobj))
    assert (tmp_path / "out" / "measures.csv").read_text().splitlines() == [
        "patient,ed_frame,es_frame,LV_edv_ml,LV_esv_ml,LV_sv_ml,LV_ef_percent",
        "patient007,2,3,1.0,0.16,0.84,84.0",
    ]


def test_measures_pair_files_of_one_patient_and_are_read_from_the_ledger(
    tmp_path: Path, runner: BrightIsForeground
) -> None:
    scans = tmp_path / "in"
    write_cine(scans / "p1" / "patient001_frame01.nii.gz", [4])
    write_cine(scans / "p1" / "patient001_frame12.nii.gz", [2])
    write_cine(scans / "patient002_frame01.nii.gz", [3])
    work = Work(measures=True)
    predict([scans], Threads(runner), HEART, tmp_path / "out", "m1", work=work)
    rows = (tmp_path / "out" / "measures.csv").read_text().splitlines()[1:]
    assert rows == ["p1/patient001,1,12,0.64,0.16,0.48,75.0", "patient002,,,,,,"]
    (tmp_path / "out" / "measures.csv").unlink()
    again = predict([scans], Threads(runner), HEART, tmp_path / "out", "m1", resume=True, work=work)
    assert (again.done, again.skipped) == (0, 3)
    assert (tmp_path / "out" / "measures.csv").read_text().splitlines()[1:] == rows
    with pytest.raises(ConfigError, match="--measures needs a model that labels LV"):
        predict([scans], Threads(runner), DATA, tmp_path / "other", "m1", work=work)


def test_two_endings_of_one_name_are_not_measured_as_one(tmp_path: Path, runner: BrightIsForeground) -> None:
    for number, name in enumerate(("a.nii", "a.nii.gz")):
        write_cine(tmp_path / "in" / name, [3 + number])
    with pytest.raises(ConfigError, match=r"a\.nii and a\.nii\.gz would share"):
        predict([tmp_path / "in"], Threads(runner), HEART, tmp_path / "out", "m1", work=Work(measures=True))
    assert not (tmp_path / "out").exists()
    assert predict([tmp_path / "in"], Threads(runner), HEART, tmp_path / "out", "m1").done == 2


def test_other_options_are_other_work(scans: Path, out: Path, runner: BrightIsForeground) -> None:
    run(scans, out, runner)
    work = Work(refinement=Refinement(flips=True))
    first = predict([scans], Threads(runner), DATA, out, "m1", True, work=work)
    second = predict([scans], Threads(runner), DATA, out, "m1", True, work=work)
    assert (first.done, second.done, second.skipped) == (2, 0, 2)
    assert {entry["model"] for entry in ledger(out)} == {"m1", "m1+flips"}


def test_a_gpu_is_given_more_volumes_at_once_than_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        for name in ("torch-cuda", "onnx-cuda", "tensorrt"):
            assert decoded_at_once(Named(name)) == expected  # type: ignore[arg-type]
        assert decoded_at_once(Named("onnx-cpu")) == 3  # type: ignore[arg-type]
