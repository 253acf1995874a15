from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from maag.cli.preparing import prepare_told
from maag.config import codec
from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.data.catalog import find_cases, preset, write_phantom
from maag.data.check import check
from maag.errors import DataError, MissingDataError, StorageError
from maag.storage import read_json, write_json

ACDC = DataConfig()


@pytest.fixture
def data_dir(phantom_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))


def spoil(path: Path, change: object) -> None:
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(change(array), image.affine), path)  # type: ignore[operator]


def any_file(data_dir: Path, ending: str) -> Path:
    return sorted(data_dir.rglob(f"*{ending}"))[0]


def test_slices_and_their_labels_lie_together(prepared: PreparedData) -> None:
    assert len(prepared.images) == len(prepared.scribbles) == len(prepared.masks) == prepared.cases[-1].stop
    assert len(prepared.patients) == 6
    scribbled = (prepared.scribbles != 255) & (prepared.scribbles != 0)
    agree = (prepared.scribbles == prepared.masks[:, None])[scribbled].mean()
    assert agree > 0.9  # nearest sampling may move a stroke by a pixel


def test_it_is_built_once_until_something_changes(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    built: list[int] = []
    data = tiny_config.data

    def again(**changes: object) -> PreparedData:
        return prepare(
            data_dir,
            replace(data, **changes),
            tmp_path / "cache",
            progress=lambda done, total: built.append(done),  # type: ignore[arg-type]
        )

    first = again()
    assert len(built) == 12
    assert again().digest == first.digest
    assert again(split_seed=5).digest == first.digest
    assert len(built) == 12
    assert again(padding_label="ignore").digest != first.digest
    mask = any_file(data_dir, "_gt.nii.gz")
    spoil(mask, lambda array: np.zeros_like(array))
    assert again().digest != first.digest
    assert len(built) == 36


def test_a_set_whose_cases_tell_more_is_not_prepared_anew(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    first = prepare(data_dir, tiny_config.data, tmp_path / "cache")
    index = read_json(first.directory / "index.json")
    for case in index["cases"]:
        case["scribbled_classes"] = [0, 1, 2, 3]  # as earlier versions did
    write_json(first.directory / "index.json", index)

    def read(done: int, total: int) -> None:
        raise AssertionError("a case was read")

    again = prepare(data_dir, tiny_config.data, tmp_path / "cache", progress=read)
    assert (again.directory, again.cases) == (first.directory, first.cases)


def test_copies_are_the_same_data_whatever_their_times(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    first = prepare(data_dir, tiny_config.data, tmp_path / "cache")
    mask = any_file(data_dir, "_gt.nii.gz")
    os.utime(mask, (1, 1))
    again = prepare(data_dir, tiny_config.data, tmp_path / "cache")
    assert again.directory != first.directory  # times may tell of another content, so the files were read again
    assert again.digest == first.digest


def test_whose_a_case_is_and_who_drew_first_make_it_anew(tmp_path: Path) -> None:
    root, cache = tmp_path / "hearts", tmp_path / "cache"
    write_phantom("folders", root, 4, seed=0)
    (root / "cases.csv").unlink()
    for rater in ("zoe", "anna"):
        shutil.copytree(root / "scribbles", tmp_path / rater)
    data = replace(preset("folders", "fast").data, unlabelled_value=4, classes=("background", "RV", "MYO", "LV"))
    first = prepare(root, data, cache)
    (root / "cases.csv").write_text("case,patient\nheart_000,anna\nheart_001,anna\n")
    second = prepare(root, data, cache)
    assert first.patient_ids != second.patient_ids
    assert second.patient_ids[0] == "anna"
    for names in (("zoe", "anna"), ("anna", "zoe")):
        assert prepare(root, data, cache, [str(tmp_path / name) for name in names]).raters == names


def test_a_check_refuses_what_training_would(tmp_path: Path) -> None:
    write_phantom("folders", tmp_path / "hearts", 4, seed=0)
    data = replace(preset("folders", "fast", tmp_path / "hearts").data, unlabelled_value=4, channels=2)
    problems = check(tmp_path / "hearts", data).problems
    assert len(problems) == 4
    assert "heart_000.nii.gz: the image has 1 channels, data.channels says 2" in problems[0]


def test_what_is_odd_is_said_whenever_it_is_trained_on(
    data_dir: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    turned = sorted(data_dir.rglob("*_scribble.nii.gz"))[:5]
    for path in turned:
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-1, 1, 1, 1]) @ image.affine), path)
    for _ in ("read", "taken from the cache"):
        prepare_told(data_dir, tiny_config.data, ["own"])
        said = capsys.readouterr().err
        assert said.count("its header has axes") == 1
        assert f"Note: 5 cases, {turned[0]} and {turned[1]} among them: its header has axes" in said


def test_of_different_oddities_the_first_are_said_and_all_are_checked(
    data_dir: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    for place, path in enumerate(sorted(data_dir.rglob("*_scribble.nii.gz"))[:5], start=2):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([place, place, 1, 1])), path)
    prepare_told(data_dir, tiny_config.data, ["own"])
    said = capsys.readouterr().err
    assert said.count("its header has voxels") == 3
    assert "Note: … and 2 more; `maag data check` with the same data and --set has them" in said
    notes = check(data_dir, tiny_config.data, ["own"]).notes
    assert sum("its header has voxels" in note for note in notes) == 5


def test_a_check_tells_of_images_that_lie_otherwise(data_dir: Path, tiny_config: Config) -> None:
    path = any_file(data_dir, "_frame01.nii.gz")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-8.0, 1.0, 1.0, 1.0])), path)
    notes = "\n".join(check(data_dir, tiny_config.data).notes)
    assert "1 image has axes LAS in the header, 11 have RAS; the first is patient" in notes
    assert "1 image has the thickest voxels along x, 11 along z; the first is patient" in notes


def test_a_scribble_in_which_nothing_is_undrawn_is_noted(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    path = any_file(data_dir, "_scribble.nii.gz")
    spoil(path, lambda array: np.where(array == 4, 0, array))  # as ITK-SNAP saves it
    assert [note for note in check(data_dir, tiny_config.data).notes if "undrawn" in note] == [
        f"patient001_frame01: {path}: no voxel is undrawn (4), so all of them teach; if 0 is what nobody drew on, give "
        "it another number with `maag data renumber`"
    ]
    [note] = [note for case in prepare(data_dir, tiny_config.data, tmp_path / "cache").cases for note in case.notes]
    assert "no voxel is undrawn" in note


def test_a_check_counts_cases_without_labels(data_dir: Path, tiny_config: Config) -> None:
    any_file(data_dir, "_scribble.nii.gz").unlink()
    for mask in sorted(data_dir.rglob("*_gt.nii.gz"))[:2]:
        mask.unlink()
    assert check(data_dir, tiny_config.data).notes == (
        "1 case has no scribble; the first is patient001_frame01",
        "2 cases have no mask; the first is patient001_frame01",
    )


def test_every_bad_case_is_named_and_no_set_is_left(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    images = [path for path in sorted(data_dir.rglob("*_frame??.nii.gz"))]
    images[0].write_bytes(images[0].read_bytes()[:60])
    scribbles = sorted(data_dir.rglob("*_scribble.nii.gz"))
    spoil(scribbles[2], lambda array: np.where(array == 0, 4, array))
    spoil(scribbles[4], lambda array: array[:-1])
    spoil(scribbles[6], lambda array: np.where(array == 4, 7, array))
    with pytest.raises(DataError) as caught:
        prepare(data_dir, tiny_config.data, tmp_path / "cache")
    message = str(caught.value)
    assert "4 of 12 cases cannot be used" in message
    for sentence in (
        f"{images[0]}: not a readable NIfTI",
        f"{scribbles[2]}: no voxel is scribbled as background",
        f"scribble {scribbles[4]} is",
        "have label 7, allowed are 0, 1, 2, 3, 4",
    ):
        assert sentence in message
    assert not list((tmp_path / "cache").glob("acdc-*"))
    report = check(data_dir, tiny_config.data)
    assert len(report.problems) == 4
    assert report.counts["usable cases"] == 8


def test_a_slice_that_two_raters_drew_on_counts_once(phantom_dir: Path, tiny_config: Config) -> None:
    one, two = (
        check(phantom_dir, tiny_config.data, sources)
        for sources in (("simulated:skeleton",), ("simulated:skeleton", "simulated:skeleton-dilated"))
    )
    assert [item.slices_scribbled for item in two.classes] == [item.slices_scribbled for item in one.classes]
    assert all(0 < item.slices_scribbled <= two.counts["slices"] for item in two.classes)


def prepare_elsewhere(data_dir: Path, plain: dict[str, object], cache: Path) -> None:
    prepare(data_dir, codec.from_dict(plain).data, cache)


@pytest.mark.slow
def test_two_processes_at_once_both_succeed(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (data_dir, codec.to_dict(tiny_config), tmp_path / "cache")
    both = [context.Process(target=prepare_elsewhere, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


@pytest.mark.slow
def test_a_full_disk_leaves_no_set_half_made(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    limit = 20_000
    program = (
        "import resource, signal, sys, json\nfrom pathlib import Path\n"
        "from maag.config import codec\nfrom maag.data.cache.preparing import prepare\n"
        "from maag.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "config = codec.from_dict(json.loads(sys.argv[2]))\n"
        "try:\n    prepare(Path(sys.argv[1]), config.data, Path(sys.argv[3]))\n"
        "except StorageError as error:\n    print(error)\n    sys.exit(7)\n"
    )
    import json

    words = [str(data_dir), json.dumps(codec.to_dict(tiny_config)), str(tmp_path / "cache")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "cannot write" in done.stdout
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock", ".part"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit


def test_a_cache_that_cannot_be_written_is_named(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of this path is a file"):
        prepare(data_dir, tiny_config.data, tmp_path / "file" / "cache")


@pytest.mark.parametrize("root", ["training", "ACDC/database/training", "."])
@pytest.mark.parametrize("scribble_folder", [None, "acdc_scribbles", "elsewhere"])
def test_layouts(phantom_dir: Path, tmp_path: Path, root: str, scribble_folder: str | None) -> None:
    top = tmp_path / "data"
    for source in (phantom_dir / "training").rglob("*.nii.gz"):
        folder = top / root if root == "." else top / root / source.parent.name
        if scribble_folder and source.name.endswith("_scribble.nii.gz"):
            folder = (top if scribble_folder == "acdc_scribbles" else tmp_path) / scribble_folder
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / source.name)
    junk = top / "__MACOSX"
    junk.mkdir()
    (junk / "patient001_frame01.nii.gz").write_text("")
    (top / "._patient001_frame01.nii.gz").write_text("")
    (top / "MANDATORY_CITATION.md").write_text("")
    cases = find_cases(ACDC, top, [str(tmp_path / "elsewhere")] if scribble_folder == "elsewhere" else [])
    assert len(cases) == 12
    assert all(case.masks and case.scribbles for case in cases)
    assert [case.case_id for case in cases] == sorted(case.case_id for case in cases)


def test_simulated_scribbles_near_the_data_never_stand_in_for_the_experts(data_dir: Path) -> None:
    drawn = [case.scribbles for case in find_cases(ACDC, data_dir)]
    flat = [path for path in data_dir.rglob("*_scribble.nii.gz")]
    for place in (data_dir.parent / "scribbles", data_dir / "scribbles"):
        place.mkdir()
        for path in flat:
            shutil.copy(path, place)
        if place.parent == data_dir.parent:
            assert [case.scribbles for case in find_cases(ACDC, data_dir)] == drawn
    assert [case.scribbles for case in find_cases(ACDC, data_dir)] == drawn  # copies of the experts'
    assert not check(data_dir, ACDC).problems
    for path in (data_dir / "scribbles").iterdir():
        spoil(path, lambda array: np.where(array == 4, 0, array))
    problems = check(data_dir, ACDC).problems
    assert len(problems) == len(drawn)
    assert "has two scribbles, " in str(problems[0])
    assert "--scribbles" in str(problems[0])
    other = [str(data_dir / "scribbles")]
    assert all(len(case.scribbles) == 1 for case in find_cases(ACDC, data_dir, other))
    assert not check(data_dir, ACDC, other).problems


def test_published_scribbles_lie_next_to_the_data_wherever_one_stands(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir.parent / "acdc_scribbles").mkdir()
    for path in list(data_dir.rglob("*_scribble.nii.gz")):
        path.rename(data_dir.parent / "acdc_scribbles" / path.name)
    monkeypatch.chdir(data_dir)
    assert all(case.scribbles for case in find_cases(ACDC, Path()))


def test_linked_folders_of_patients_and_of_scribbles_are_entered(data_dir: Path, tmp_path: Path) -> None:
    before = find_cases(ACDC, data_dir)
    (data_dir / "training").rename(tmp_path / "elsewhere")
    (data_dir / "training").symlink_to(tmp_path / "elsewhere")
    assert find_cases(ACDC, data_dir) == before
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "one").symlink_to(tmp_path / "strokes")
    (tmp_path / "strokes").mkdir()
    for path in (tmp_path / "elsewhere").rglob("*_scribble.nii.gz"):
        path.rename(tmp_path / "strokes" / path.name)
    assert all(case.scribbles for case in find_cases(ACDC, data_dir, [str(tmp_path / "drawn")]))


def test_one_case_twice_is_refused(data_dir: Path) -> None:
    shutil.copytree(data_dir / "training", data_dir / "testing")
    with pytest.raises(DataError, match=r"there more than once, as .*testing.* and .*training.*; keep one copy"):
        find_cases(ACDC, data_dir)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no case of acdc in it; expected patientNNN"):
        find_cases(ACDC, tmp_path)


@pytest.mark.slow
def test_a_phantom_is_the_same_for_a_seed_and_fit_to_train_on(tmp_path: Path, tiny_config: Config) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom("acdc", tmp_path / name, 4, seed)
    content = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))}
        for name in "abc"
    }
    assert content["a"] == content["b"]
    assert content["a"] != content["c"]
    report = check(tmp_path / "a", tiny_config.data)
    assert report.problems == ()
    assert all(item.slices_scribbled and item.cases_in_masks for item in report.classes)
    for case in find_cases(ACDC, tmp_path / "a"):
        scribble = np.asarray(nib.load(case.scribbles[0].path).dataobj)
        mask = np.asarray(nib.load(case.masks[0]).dataobj)
        assert (scribble == mask)[scribble != 4].all()
    with pytest.raises(StorageError, match="not empty; choose a new folder"):
        write_phantom("acdc", tmp_path / "a", 4, 1)
