"""The cache of prepared data: built once, equal for equal files, complete or absent."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from phantom_datasets import first_match, modify_voxels

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare, prepare_cases
from maag.data.catalog import find_cases, preset, write_phantom
from maag.data.check import check
from maag.errors import DataError, StorageError
from maag.labels import IGNORE
from maag.storage import read_json, write_json


def test_prepared_slices_match_their_scribbles_and_masks(prepared: PreparedData) -> None:
    assert len(prepared.images) == len(prepared.scribbles) == len(prepared.masks) == prepared.cases[-1].stop
    assert len(prepared.patients) == 6
    scribbled = (prepared.scribbles != 255) & (prepared.scribbles != 0)
    agree = (prepared.scribbles == prepared.masks[:, None])[scribbled].mean()
    assert agree > 0.9  # nearest sampling may move a stroke by a pixel


def test_annotated_labels_are_scribbles_where_there_is_no_mask(prepared: PreparedData) -> None:
    scribbles, masks = np.full((3, 2, 1, 3), IGNORE, np.uint8), np.full((3, 1, 3), IGNORE, np.uint8)
    scribbles[:, 1, 0, 0] = 2
    masks[2] = 1
    labels = replace(prepared, scribbles=scribbles, masks=masks).annotated_labels(np.array([1, 2]))
    assert labels.tolist() == [[[2, IGNORE, IGNORE]], [[1, 1, 1]]]


def test_a_thin_stroke_between_pixel_centres_of_a_coarse_grid_is_kept(
    data_dir: Path, tiny_config: Config, tmp_path: Path
) -> None:
    def draw_one_line(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        labels[...] = 4
        labels[0, 0], labels[:, 71] = 0, 2
        return labels

    scribble = first_match(data_dir, "*_scribble.nii.gz")
    modify_voxels(scribble, draw_one_line)
    data = replace(tiny_config.data, spacing_mm=5 * float(nib.load(scribble).header.get_zooms()[1]))
    cases = [case for case in find_cases(data, data_dir) if scribble in [item.path for item in case.scribbles]]
    found = prepare_cases(cases, data_dir, data, tmp_path / "cache").scribbles
    assert ((found == 2).sum(axis=(1, 2, 3)) > 20).all()  # of the 24 or more pixels of a row


@pytest.mark.slow
def test_prepared_data_is_rebuilt_only_after_a_change(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    built: list[int] = []
    data = tiny_config.data

    def prepare_again(**changes: object) -> PreparedData:
        return prepare(
            data_dir,
            replace(data, **changes),
            tmp_path / "cache",
            progress=lambda done, total: built.append(done),  # type: ignore[arg-type]
        )

    first = prepare_again()
    assert len(built) == 12
    assert prepare_again().digest == first.digest
    assert prepare_again(split_seed=5).digest == first.digest
    assert len(built) == 12
    assert prepare_again(padding_label="ignore").digest != first.digest
    mask = first_match(data_dir, "*_gt.nii.gz")
    modify_voxels(mask, lambda array: np.zeros_like(array))
    assert prepare_again().digest != first.digest
    assert len(built) == 36


def test_prepared_data_with_extra_case_fields_is_reused(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    first = prepare(data_dir, tiny_config.data, tmp_path / "cache")
    index = read_json(first.directory / "index.json")
    for case in index["cases"]:
        case["scribbled_classes"] = [0, 1, 2, 3]  # as earlier versions did
    write_json(first.directory / "index.json", index)

    def refuse_to_read(done: int, total: int) -> None:
        raise AssertionError("a case was read")

    again = prepare(data_dir, tiny_config.data, tmp_path / "cache", progress=refuse_to_read)
    assert (again.directory, again.cases) == (first.directory, first.cases)


def test_changed_case_fields_require_a_new_format_version(prepared: PreparedData) -> None:
    # Format 10 had `axes` instead of `orientation`: a set without a field must not pass for the current format.
    index = read_json(prepared.directory / "index.json")
    assert (index["format_version"], sorted(index["cases"][0])) == (
        12,
        [
            *("affine", "case_id", "frame", "has_mask", "key", "notes", "orientation", "part", "patient_id", "raters"),
            *("sha256", "source_shape", "spacing_mm", "start", "stop"),
        ],
    )


def test_files_with_other_modification_times_give_the_same_digest(
    data_dir: Path, tiny_config: Config, tmp_path: Path
) -> None:
    first = prepare(data_dir, tiny_config.data, tmp_path / "cache")
    mask = first_match(data_dir, "*_gt.nii.gz")
    os.utime(mask, (1, 1))
    again = prepare(data_dir, tiny_config.data, tmp_path / "cache")
    assert again.directory != first.directory  # a new time may mean new content, so the files are read again
    assert again.digest == first.digest


@pytest.mark.slow
def test_changed_patients_or_rater_order_rebuild_the_prepared_data(tmp_path: Path) -> None:
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


def test_every_bad_case_is_reported_and_no_prepared_data_is_left(
    data_dir: Path, tiny_config: Config, tmp_path: Path
) -> None:
    images = [path for path in sorted(data_dir.rglob("*_frame??.nii.gz"))]
    images[0].write_bytes(images[0].read_bytes()[:60])
    scribbles = sorted(data_dir.rglob("*_scribble.nii.gz"))
    modify_voxels(scribbles[2], lambda array: np.where(array == 0, 4, array))
    modify_voxels(scribbles[4], lambda array: array[:-1])
    modify_voxels(scribbles[6], lambda array: np.where(array == 4, 7, array))
    with pytest.raises(DataError) as caught:
        prepare(data_dir, tiny_config.data, tmp_path / "cache")
    message = str(caught.value)
    assert "4 of 12 cases cannot be used" in message
    for sentence in (
        f"{images[0]}: not a readable NIfTI",
        f"{scribbles[2]}: no voxel is scribbled as background",
        f"scribble {scribbles[4]} has shape",
        "have label 7, allowed are 0, 1, 2, 3, 4",
    ):
        assert sentence in message
    assert not list((tmp_path / "cache").glob("acdc-*"))
    report = check(data_dir, tiny_config.data)
    assert len(report.problems) == 4
    assert report.counts["usable cases"] == 8


def prepare_in_process(data_dir: Path, plain: dict[str, object], cache: Path) -> None:
    prepare(data_dir, codec.from_dict(plain).data, cache)


@pytest.mark.slow
def test_two_concurrent_preparations_both_succeed(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (data_dir, codec.to_dict(tiny_config), tmp_path / "cache")
    both = [context.Process(target=prepare_in_process, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


@pytest.mark.slow
def test_a_full_disk_leaves_no_incomplete_set_in_the_cache(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("index.json", None, "index.json is missing"),
        ("index.json", "{}", "format_version"),
        ("masks.raw", None, "masks.raw is missing"),
        ("images.raw", "short", "mmap length is greater than file size"),
    ],
)
def test_a_damaged_set_is_refused_with_the_folder_to_remove(
    data_dir: Path, tiny_config: Config, tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    cases = find_cases(tiny_config.data, data_dir)[:1]
    folder = prepare_cases(cases, data_dir, tiny_config.data, tmp_path / "cache").directory
    (folder / name).unlink()
    if content:
        (folder / name).write_text(content)
    with pytest.raises(StorageError) as caught:
        prepare_cases(cases, data_dir, tiny_config.data, tmp_path / "cache")
    assert str(caught.value).startswith(f"{folder}: a damaged prepared set (")
    assert reason in str(caught.value)
    shutil.rmtree(folder)
    assert prepare_cases(cases, data_dir, tiny_config.data, tmp_path / "cache").directory == folder


def test_an_unwritable_cache_is_refused(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of this path is a file"):
        prepare(data_dir, tiny_config.data, tmp_path / "file" / "cache")


def test_a_lock_that_cannot_be_opened_is_an_error_of_storage(
    data_dir: Path, tiny_config: Config, tmp_path: Path
) -> None:
    cases = find_cases(tiny_config.data, data_dir)[:1]
    folder = prepare_cases(cases, data_dir, tiny_config.data, tmp_path / "cache").directory
    shutil.rmtree(folder)
    lock = folder.with_name(f".{folder.name}.lock")
    lock.unlink()
    lock.mkdir()  # as another user's lock file, which root could open
    with pytest.raises(StorageError, match=f"cannot write {lock}: "):
        prepare_cases(cases, data_dir, tiny_config.data, tmp_path / "cache")
