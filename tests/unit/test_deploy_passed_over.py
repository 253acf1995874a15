"""Masks and scribbles of the layouts that maag reads are no images, however inputs name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from bright_runner import DATA, BrightIsForeground, write_volume
from folder_bucket import serve

from deploy.batch import predict
from deploy.crew import Threads
from deploy.passed_over import labels_among
from deploy.sources import find_sources


def found(*inputs: str | Path) -> tuple[list[str], dict[str, str]]:
    passed_over: dict[str, str] = {}
    return sorted(source.target for source in find_sources(inputs, passed_over=passed_over)), passed_over


PATTERNS = {"acdc": "*", "chaos": "*", "chaos-ct": "*", "folders": "*s", "lvsc": "*", "nnunet": "*T[rs]"}
LABELS = {
    "acdc": ("*_gt.nii.gz", "*_scribble.nii.gz"),
    "chaos": ("*.png",),
    "chaos-ct": ("*.png",),
    "folders": ("masks/*", "scribbles/*"),
    "lvsc": ("*.png",),
    "nnunet": ("labelsT?/*",),
}


def labels_of(name: str, data: Path) -> set[Path]:
    return {path for pattern in LABELS[name] for path in data.rglob(pattern)}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("way", ["folder", "pattern", "list", "bucket"])
def test_a_data_set_is_segmented_without_its_labels(
    name: str, way: str, phantoms: Path, phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = phantom_dir if name == "acdc" else phantoms / name
    given: str | Path = data
    if way == "pattern":
        given = data / PATTERNS[name]
    elif way == "list":
        given = tmp_path / "list.txt"
        given.write_text("\n".join(str(path) for path in data.iterdir() if path.is_dir()))
    elif way == "bucket":
        serve(monkeypatch, data.parent)
        given = f"s3://bkt/{data.name}"
    passed_over: dict[str, str] = {}
    places = {source.place for source in find_sources([given], passed_over=passed_over)}
    labels = {str(path).replace(str(data.parent), "s3://bkt" if way == "bucket" else str(data.parent))
              for path in labels_of(name, data)}  # fmt: skip
    assert places
    assert not places & labels
    assert len(passed_over) == len(labels) > 0


def test_labels_that_stand_alone_are_segmented_as_asked(phantoms: Path) -> None:
    for folder in ("folders/masks", "folders/scribbles", "nnunet/labelsTr"):
        targets, passed_over = found(phantoms / folder)
        assert (len(targets), len(passed_over)) == (len(list((phantoms / folder).iterdir())), 0)
    ground = next((phantoms / "chaos-ct").rglob("Ground"))
    assert len(found(ground)[0]) == len(found(ground / "*.png")[0]) == len(list(ground.iterdir()))


@pytest.mark.parametrize(
    ("label", "beside", "known"),
    [
        ("s/a_gt.nii", "s/a.nii.gz", True),
        ("s/_gt.nii", "s/a.nii", False),
        ("s/a_gt.nii", "t/a.nii", False),
        ("acdc_scribbles/a_scribble.nii.gz", "acdc/training/a/a.nii.gz", True),
        ("acdc_scribbles/a.nii.gz", "acdc/training/a/a.nii.gz", False),
        ("d/scribbles/rater/a.nii", "d/images/b.nii", True),
        ("d/masks/a.nii", "e/images/a.nii", False),
        ("d/labelsTs/a.nii", "d/imagesTr/a_0000.nii", True),
        ("d/Ground/a.png", "d/b.png", False),
    ],
)
def test_by_which_paths_labels_are_known(label: str, beside: str, known: bool) -> None:
    for place in ("", "/root/", "s3://bkt/x/"):
        files = [PurePosixPath(place + label), PurePosixPath(place + beside)]
        assert (list(labels_among(files)) == files[:1]) == known
        assert not labels_among(files[:1])


@pytest.mark.parametrize(
    ("label", "beside", "known"),
    [
        ("c/T1DUAL/Ground/a.png", "c/T1DUAL/DICOM_anon/InPhase/b.dcm", True),
        ("c/Ground/a.png", "d/b.dcm", False),
        ("l/IM1.png", "l/im1.DCM", True),
        ("masks/IM1.png", "l/IM1.dcm", False),
        ("masks/DET0000101_SA1_ph0.png", "l/DET0000101_SA1_ph0.dcm", True),
        ("l/IM1.nii.gz", "l/IM1.dcm", False),
        ("d/masks/a.nii.gz", "d/images/a/1.dcm", True),
    ],
)
def test_by_which_paths_labels_of_slices_are_known(label: str, beside: str, known: bool) -> None:
    assert bool(labels_among([PurePosixPath(label)], {PurePosixPath(beside)})) == known


def test_how_many_were_passed_over_and_why_is_told_in_a_line(tmp_path: Path, copy_of: Callable[[str], Path]) -> None:
    data = copy_of("folders")
    write_volume(data / "more" / "a.nii.gz")
    write_volume(data / "more" / "a_gt.nii.gz")
    told: list[str] = []
    runner = Threads(BrightIsForeground())
    outcome = predict([data], runner, DATA, tmp_path / "out", "m", tell=told.append)
    labels = len(labels_of("folders", data))
    masks = len(list((data / "masks").iterdir()))
    assert (outcome.failed, outcome.passed_over, outcome.to_dict()["passed_over"]) == ((), labels + 1, labels + 1)
    assert not (tmp_path / "out" / "masks").exists()
    (line,) = told
    assert line.startswith(f"Passed over {labels + 1} files that are labels, no images: ")
    assert f"{masks} in masks/ beside images/" in line
    assert "1 named as labels of the image beside them" in line
    predict([data / "images"], runner, DATA, tmp_path / "images", "m", tell=told.append)
    assert len(told) == 1
