"""The program beside an exported model reports damaged and missing files in one sentence, and keeps existing files."""

from __future__ import annotations

import gzip
import runpy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from tiny_artifact import write_tiny_artifact

from deploy.artifact.manifest import write_manifest
from deploy.exporting.companions import PROGRAM, write_companions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_companions(folder, write_tiny_artifact(folder))
    return folder


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(0).normal(size=(20, 12, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def refusal(model: Path, arguments: Sequence[object]) -> str:
    """The one sentence with which the program exits."""
    main = runpy.run_path(str(model / PROGRAM))["main"]
    with pytest.raises(SystemExit) as ended:
        main(*map(str, arguments))
    sentence = str(ended.value.code)
    assert len(sentence.splitlines()) == 1, sentence
    return sentence


def test_a_valid_scan_is_segmented(model: Path, scan: Path) -> None:
    labels = scan.with_name("labels.nii.gz")
    runpy.run_path(str(model / PROGRAM))["main"](str(scan), str(labels))
    assert nibabel.load(labels).shape == (20, 12, 2)
    assert {path.name for path in scan.parent.iterdir()} == {"scan.nii.gz", "labels.nii.gz"}


def test_a_differently_oriented_scan_is_reported_and_reoriented_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_tiny_artifact(tmp_path / "model")
    write_companions(tmp_path / "model", manifest)
    write_manifest(tmp_path / "model", replace(manifest, source=replace(manifest.source, orientations=("LPS", "LAS"))))
    main = runpy.run_path(str(tmp_path / "model" / PROGRAM))["main"]
    # With an odd number of pixels, a mirrored scan on the model's grid is not exactly a mirror image.
    voxels = np.random.default_rng(0).normal(size=(21, 13, 2, 3)).astype(np.float32)
    scan = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))
    nibabel.save(scan, tmp_path / "lps.nii.gz")
    pair = axcodes2ornt("LPS"), axcodes2ornt("RAS")
    nibabel.save(scan.as_reoriented(ornt_transform(*pair)), tmp_path / "ras.nii.gz")
    found = {}
    for name, *options in (("lps",), ("ras",), ("ras", "--reorient")):
        main(*options, str(tmp_path / f"{name}.nii.gz"), str(tmp_path / "labels.nii.gz"))
        labels = nibabel.load(tmp_path / "labels.nii.gz")
        np.testing.assert_array_equal(labels.affine, nibabel.load(tmp_path / f"{name}.nii.gz").affine)
        in_lps = labels if name == "lps" else labels.as_reoriented(ornt_transform(*reversed(pair)))
        found[name, *options], stderr = np.asarray(in_lps.dataobj), capsys.readouterr().err
        notes = [f"{tmp_path / 'ras.nii.gz'}: oriented differently (RAS) from the training images (LPS or LAS)"]
        assert [line.split(";")[0] for line in stderr.splitlines()] == (notes if (name, *options) == ("ras",) else [])
    np.testing.assert_array_equal(found["ras", "--reorient"], found["lps",])
    assert (found["ras",] != found["lps",]).any()


def write_model(folder: Path, *, channels: int = 1, orientations: tuple[str, ...] | None = ("LPS",)) -> Path:
    """Write a model of so many channels whose training images had these orientations."""
    manifest = write_tiny_artifact(folder)
    data = replace(manifest.config.data, channels=channels)
    config, source = replace(manifest.config, data=data), replace(manifest.source, orientations=orientations)
    write_companions(folder, replace(manifest, config=config))
    write_manifest(folder, replace(manifest, config=config, source=source))
    return folder


def test_a_2d_slice_is_reoriented_on_request(tmp_path: Path) -> None:
    main = runpy.run_path(str(write_model(tmp_path / "model") / PROGRAM))["main"]
    pixels = np.random.default_rng(0).normal(size=(21, 13)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(pixels, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "lps.nii.gz")
    nibabel.save(nibabel.Nifti1Image(pixels[::-1, ::-1], np.eye(4)), tmp_path / "ras.nii.gz")
    found = {}
    for name in ("lps", "ras"):
        main("--reorient", str(tmp_path / f"{name}.nii.gz"), str(tmp_path / "labels.nii.gz"))
        found[name] = np.asarray(nibabel.load(tmp_path / "labels.nii.gz").dataobj)
    np.testing.assert_array_equal(found["ras"][::-1, ::-1], found["lps"])


def test_a_scan_of_unknown_orientation_stays_as_stored_and_is_reported(
    tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(write_model(tmp_path / "model") / PROGRAM))["main"]
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(scan).dataobj), None), scan)
    main("--reorient", str(scan), str(tmp_path / "labels.nii.gz"))
    assert capsys.readouterr().err.startswith(f"{scan}: not reoriented: its header records no orientation")


@pytest.mark.parametrize("orientations", [(), None])
def test_reorient_is_refused_if_the_training_orientations_are_unknown(
    tmp_path: Path, scan: Path, orientations: tuple[str, ...] | None
) -> None:
    model = write_model(tmp_path / "model", orientations=orientations)
    assert refusal(model, ["--reorient", scan, tmp_path / "labels.nii.gz"]).startswith("--reorient: the model does not")


@pytest.mark.parametrize("options", [[], ["--reorient"]])
def test_channels_of_different_orientations_are_refused(tmp_path: Path, scan: Path, options: list[str]) -> None:
    model, other = write_model(tmp_path / "model", channels=2), scan.with_name("other.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(scan).dataobj), np.diag([-1.0, 1.0, 1.0, 1.0])), other)
    assert refusal(model, [*options, scan, other, tmp_path / "labels.nii.gz"]).startswith(f"{other}: not on the grid")


def test_a_channel_of_unknown_orientation_does_not_hide_those_of_the_others(tmp_path: Path, scan: Path) -> None:
    model, other = write_model(tmp_path / "model", channels=3), scan.with_name("other.nii.gz")
    unknown, voxels = scan.with_name("unknown.nii.gz"), np.asarray(nibabel.load(scan).dataobj)
    nibabel.save(nibabel.Nifti1Image(voxels, None), unknown)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.0, 1.0, 1.0])), other)
    channels = [unknown, scan, other]
    assert refusal(model, [*channels, tmp_path / "labels.nii.gz"]).startswith(f"{other}: not on the grid")


def damaged(scan: Path, how: str) -> Path:
    """Write a file beside `scan` that cannot be segmented."""
    whole, other = scan.read_bytes(), scan.with_name("other.nii.gz")
    if how == "truncated":
        other.write_bytes(whole[: len(whole) // 2])
    elif how == "truncated, not packed":
        other = scan.with_name("other.nii")
        other.write_bytes(gzip.decompress(whole)[:900])
    elif how == "empty":
        other.write_bytes(b"")
    elif how == "a text":
        other.write_text("no image")
    elif how == "impossible":
        header = bytearray(gzip.decompress(whole))
        header[40:56] = np.array([7, *[32767] * 7], np.int16).tobytes()
        other.write_bytes(gzip.compress(bytes(header)))
    elif how in ("nan", "complex", "a line"):
        voxels = np.asarray(nibabel.load(scan).dataobj)
        changed = {"nan": np.where(voxels > 1, np.nan, voxels), "complex": voxels * (1 + 1j), "a line": voxels[:, 0, 0]}
        nibabel.save(nibabel.Nifti1Image(changed[how], np.eye(4)), other)
    return other


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("not there", "not a whole, readable NIfTI file; copy or export it again (No such file"),
        ("truncated", "not a whole, readable NIfTI file"),
        ("truncated, not packed", "not a whole, readable NIfTI file"),
        ("empty", "not a whole, readable NIfTI file"),
        ("a text", "not a whole, readable NIfTI file"),
        ("impossible", "not a whole, readable NIfTI file"),
        ("nan", "not a slice, volume or cine of finite numbers"),
        ("complex", "not a slice, volume or cine of finite numbers"),
        ("a line", "not a slice, volume or cine of finite numbers"),
    ],
)
def test_an_unusable_image_is_named_in_the_error(model: Path, scan: Path, how: str, sentence: str) -> None:
    image, labels = damaged(scan, how), scan.with_name("labels.nii.gz")
    assert refusal(model, [image, labels]).startswith(f"{image}: {sentence}")
    assert not labels.exists()


@pytest.mark.slow
def test_the_program_reports_an_error_in_one_line_and_exits_with_1(model: Path, scan: Path) -> None:
    image = damaged(scan, "impossible")  # nibabel would log a line of its own
    arguments = [sys.executable, model / PROGRAM, image, scan.with_name("labels.nii.gz")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr


@pytest.mark.parametrize("arguments", [[], ["one.nii.gz"], ["one.nii.gz", "two.nii.gz", "labels.nii.gz"]])
def test_another_number_of_files_is_refused(model: Path, arguments: list[str]) -> None:
    assert "this model takes 1: one NIfTI file per channel" in refusal(model, arguments)


@pytest.mark.parametrize("name", ["labels", "labels.png", "not there/labels.nii.gz"])
def test_an_invalid_path_for_labels_is_refused(model: Path, scan: Path, name: str) -> None:
    assert "a name that ends in .nii.gz or .nii, in an existing folder" in refusal(model, [scan, scan.parent / name])


def test_labels_that_cannot_be_written_leave_nothing_behind(model: Path, scan: Path) -> None:
    place = scan.with_name("labels.nii.gz")
    place.mkdir()
    assert refusal(model, [scan, place]).startswith(f"{place}: the labels cannot be written")
    assert {path.name for path in scan.parent.iterdir()} == {"scan.nii.gz", "labels.nii.gz"}


@pytest.mark.parametrize(("name", "content"), [("model.onnx", b"no graph"), ("manifest.json", b"{"), ("", b"")])
def test_a_damaged_model_is_named_in_the_error(tmp_path: Path, scan: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "model"
    write_companions(folder, write_tiny_artifact(folder))
    if name:
        (folder / name).write_bytes(content)
    else:
        (folder / "model.onnx").unlink()
    sentence = refusal(folder, [scan, scan.with_name("labels.nii.gz")])
    assert sentence.startswith(f"{folder}: manifest.json or model.onnx in it cannot be used")
