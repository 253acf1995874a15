"""Masks and scribbles of the layouts that maag reads are not segmented as images, however inputs name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from folder_bucket import serve_as_bucket
from threshold_runner import DATA, ThresholdRunner, write_volume

from deploy.inputs.passed_over import labels_among, sentence
from deploy.inputs.sources import find_sources
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from maag.errors import ConfigError, MissingDataError


def find_targets(*inputs: str | Path) -> tuple[list[str], dict[str, str]]:
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
@pytest.mark.parametrize("input_kind", ["folder", "pattern", "list", "bucket"])
def test_a_data_set_is_segmented_without_its_labels(
    name: str, input_kind: str, phantoms: Path, phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = phantom_dir if name == "acdc" else phantoms / name
    given: str | Path = data
    if input_kind == "pattern":
        given = data / PATTERNS[name]
    elif input_kind == "list":
        given = tmp_path / "list.txt"
        given.write_text("\n".join(str(path) for path in data.iterdir() if path.is_dir()))
    elif input_kind == "bucket":
        serve_as_bucket(monkeypatch, data.parent)
        given = f"s3://bkt/{data.name}"
    passed_over: dict[str, str] = {}
    places = {source.place for source in find_sources([given], passed_over=passed_over)}
    labels = {str(path).replace(str(data.parent), "s3://bkt" if input_kind == "bucket" else str(data.parent))
              for path in labels_of(name, data)}  # fmt: skip
    assert places
    assert not places & labels
    assert len(passed_over) == len(labels) > 0


def test_labels_given_without_images_are_segmented(phantoms: Path) -> None:
    for folder in ("folders/masks", "folders/scribbles", "nnunet/labelsTr"):
        targets, passed_over = find_targets(phantoms / folder)
        assert (len(targets), len(passed_over)) == (len(list((phantoms / folder).iterdir())), 0)
    ground = next((phantoms / "chaos-ct").rglob("Ground"))
    assert len(find_targets(ground)[0]) == len(find_targets(ground / "*.png")[0]) == len(list(ground.iterdir()))


@pytest.mark.parametrize(
    ("label", "beside", "recognised"),
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
        ("s/x_gt.nii.gz", "s/x_0000.nii.gz", True),
        ("s/x_seg.nii.gz", "s/x_00000.nii.gz", False),
        ("scribbles/x_scribble.nii.gz", "s/x_0000.nii.gz", True),
        ("drawn/x_scribble.nii.gz", "s/x.nii.gz", True),
        ("drawn/deep/x_scribbles.png", "s/x_0001.png", True),
        ("drawn/x_scribble.nii.gz", "s/y.nii.gz", False),
        ("s/drawn-sheet.png", "s/drawn/x.png", True),
        ("s/drawn-sheet.png", "s/x.png", False),
        ("s/drawn-sheet.nii", "s/drawn/x.png", False),
        ("s/..png", "s/..nii", False),
        ("s/-sheet.png", "s/.._gt.png", False),
    ],
)
def test_labels_are_recognised_by_their_path_and_the_image_beside_them(
    label: str, beside: str, recognised: bool
) -> None:
    for place in ("", "/root/", "s3://bkt/x/"):
        files = [PurePosixPath(place + label), PurePosixPath(place + beside)]
        assert (list(labels_among(files)) == files[:1]) == recognised
        assert not labels_among(files[:1])


@pytest.mark.parametrize(
    ("label", "beside", "recognised"),
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
def test_labels_of_dicom_slices_are_recognised_by_their_paths(label: str, beside: str, recognised: bool) -> None:
    assert bool(labels_among([PurePosixPath(label)], {PurePosixPath(beside)})) == recognised


def test_folders_above_the_input_do_not_mark_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("masks/a/p1.png", "masks/a/p1b_gt.png", "masks/a/deep/p1b.png", "images/a/p1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    serve_as_bucket(monkeypatch, tmp_path)
    (tmp_path / "list.txt").write_text("masks/a/p1.png\nmasks/a/p1b_gt.png\nmasks/a/deep\n")
    inputs = (
        "masks",
        "masks/",
        "./masks/a",
        "masks/*",
        "masks/**/*.png",
        "list.txt",
        "s3://bkt/masks/a",
        "S3://bkt/masks/*",
    )
    for given in (*inputs, tmp_path / "masks" / "a"):
        targets, passed_over = find_targets(given)
        assert (len(targets), passed_over) == (3, {}), given
    # Here the folder that marks them is below the input.
    for given in (".", tmp_path, "[mi]*", "[mi]*/a", "s3://bkt"):
        assert len(find_targets(given)[1]) == 3, given


def test_a_label_given_explicitly_is_segmented(tmp_path: Path) -> None:
    for name in ("a.nii", "a_gt.nii", "b.nii", "b_gt.nii"):
        write_volume(tmp_path / name)
    for inputs in ([tmp_path, tmp_path / "b_gt.nii"], [tmp_path / "b_gt.nii", tmp_path]):
        targets, passed_over = find_targets(*inputs)
        assert set(targets) == {"a.nii", "b.nii", "b_gt.nii"}
        assert list(passed_over) == [str(tmp_path / "a_gt.nii")]
    _, passed_over = find_targets(tmp_path)
    assert sentence(passed_over).endswith(
        f"to segment them, give these files in a separate call, first {tmp_path / 'a_gt.nii'}"
    )
    targets, nothing = find_targets(*passed_over)
    assert (targets, nothing) == (["a_gt.nii", "b_gt.nii"], {})


def test_the_number_and_reasons_of_passed_over_files_are_reported_in_one_line(
    tmp_path: Path, copy_of: Callable[[str], Path]
) -> None:
    data = copy_of("folders")
    write_volume(data / "more" / "a.nii.gz")
    write_volume(data / "more" / "a_gt.nii.gz")
    notes: list[str] = []
    runner = Threads(ThresholdRunner())
    outcome = predict([data], runner, DATA, tmp_path / "out", "m", notify=notes.append)
    labels = len(labels_of("folders", data))
    masks = len(list((data / "masks").iterdir()))
    assert (outcome.failed, outcome.passed_over, outcome.to_dict()["passed_over"]) == ((), labels + 1, labels + 1)
    assert not (tmp_path / "out" / "masks").exists()
    (line,) = notes
    assert line.startswith(f"Passed over {labels + 1} files that are labels rather than images: ")
    assert f"{masks} in masks/ beside images/" in line
    assert "1 named as labels of the image beside them" in line
    predict([data / "images"], runner, DATA, tmp_path / "images", "m", notify=notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize("input_kind", ["folder", "pattern", "pattern of files", "list", "bucket"])
def test_volumes_of_unsupported_formats_are_reported(
    input_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = tmp_path / "scans"
    write_volume(scans / "a" / "a.nii.gz")
    for name in ("b.mha", "C.NRRD"):
        (scans / "a" / name).write_bytes(b"x")
    given: str | Path = scans
    if input_kind == "pattern":
        given = tmp_path / "sc*"
    elif input_kind == "pattern of files":
        given = scans / "a" / "*"
    elif input_kind == "list":
        given = tmp_path / "list.txt"
        given.write_text(str(scans))
    elif input_kind == "bucket":
        serve_as_bucket(monkeypatch, tmp_path)
        given = "s3://bkt/scans"
    targets, passed_over = find_targets(given)
    assert len(targets) == 1
    first = "s3://bkt/scans/a/C.NRRD" if input_kind == "bucket" else scans / "a" / "C.NRRD"
    advice = f"2 files of a format that maag does not read: to segment them, convert them to .nii.gz, first {first}"
    assert sentence(passed_over) == f"Passed over {advice}"
    label = {"x_gt.nii": "named so"}
    assert sentence(passed_over | label).startswith(
        "Passed over 1 file that is a label rather than an image: 1 named so; "
    )
    assert sentence(passed_over | label).endswith(f"; and {advice}")


@pytest.mark.parametrize("input_kind", ["folder", "bucket"])
def test_an_input_of_an_unsupported_format_is_refused_with_advice_to_convert_it(
    input_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.mha").write_bytes(b"x")
    serve_as_bucket(monkeypatch, tmp_path)
    root = "s3://bkt" if input_kind == "bucket" else str(tmp_path)
    with pytest.raises(ConfigError, match=r"b\.mha: of a format that maag does not read; convert it to \.nii\.gz"):
        find_targets(f"{root}/in/b.mha")
    for given in ("in", "i*"):
        with pytest.raises(MissingDataError, match=rf"below it; {root}/in/b\.mha is of .* convert it to \.nii\.gz"):
            find_targets(f"{root}/{given}")
