"""Pictures and DICOM series as inputs, with labels on their own grid."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from phantom_datasets import config_of
from PIL import Image

from deploy.inputs.channel_files import fitting
from deploy.inputs.images import DicomSeries, NiftiImage, Picture, find_images
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from maag.config.data import DataConfig
from maag.data.catalog import reader_of
from maag.data.files.dicom_series import load_series
from maag.data.files.header_agreement import header_differences
from maag.data.files.volume import load_labels, load_volume
from maag.data.geometry import prepare_image
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import ConfigError, DataError, MissingDataError

DATA = DataConfig(classes=("background", "bright"), size_px=(32, 32), spacing_mm=1.0, normalization="unit")


class BrightIsForeground:
    name = "bright"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = (images[:, 0] > (images.min() + images.max()) / 2).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


def square(shape: tuple[int, ...], value: int) -> NDArray[np.uint8]:
    pixels = np.zeros(shape, np.uint8)
    pixels[..., 10:20, 5:15] = value
    return pixels


def write_series(folder: Path, series: str, spacing_mm: float = 1.0, offsets_mm: tuple[float, ...] = (0, 0, 0)) -> None:
    """Write three slices 6 mm apart, their files in another order than their positions."""
    for number, plane in enumerate(square((3, 24, 28), 200).astype(np.uint16)):
        position = (-10.0, 5.0 + offsets_mm[number], 6.0 * number)
        path = folder / f"{series}-{9 - number}.dcm"
        save_slice(
            path, plane, spacing_mm=spacing_mm, thickness_mm=6.0, position=position, series=series, number=number
        )


def test_labels_of_a_picture_are_a_picture(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(square((24, 28), 200)).save(tmp_path / "in" / "sub" / "a.png")
    Image.fromarray(square((24, 28), 1)).save(tmp_path / "in" / "sub" / "a_m.png")  # its mask, not an image
    Image.fromarray(square((24, 28), 200)).save(tmp_path / "in" / "b.jpg", quality=95)
    outcome = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m")
    assert (outcome.done, outcome.failed) == (2, ())
    for name in ("sub/a.png", "b.png"):
        with Image.open(tmp_path / "out" / name) as labels:
            assert labels.mode == "L"
            assert (np.asarray(labels) == square((24, 28), 1)).mean() > 0.99
    names = json.loads((tmp_path / "out" / "sub" / "a.json").read_text())
    assert names == {"labels": {"0": "background", "1": "bright"}}


def test_labels_of_a_rotated_photograph_follow_its_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated by 90 degrees to the left
    (tmp_path / "in").mkdir()
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(square((24, 28), 200))))
    stored.save(tmp_path / "in" / "a.jpg", quality=95, exif=exif)
    outcome = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m")
    assert (outcome.done, outcome.failed) == (1, ())
    with Image.open(tmp_path / "out" / "a.png") as labels:
        assert (np.asarray(labels) == square((24, 28), 1)).mean() > 0.99


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_2d_nifti_is_one_slice_and_gets_2d_labels(tmp_path: Path, suffix: str) -> None:
    image = nibabel.Nifti1Image(square((24, 28), 200).T, np.diag([1.0, 1.0, 8.0, 1.0]))
    path = tmp_path / "in" / f"a{suffix}"
    path.parent.mkdir()
    nibabel.save(image, path)
    assert load_volume(path).orientation == "RAS"
    outcome = predict([path], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m")
    assert (outcome.done, outcome.failed) == (1, ())
    labels = nibabel.load(tmp_path / "out" / path.name)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), square((24, 28), 1).T)
    np.testing.assert_array_equal(labels.affine, image.affine)
    read, spacing_mm = load_labels(tmp_path / "out" / path.name, (0, 1))
    assert (read.shape, spacing_mm) == ((1, 24, 28), (8.0, 1.0, 1.0))
    assert header_differences(tmp_path / "out" / path.name, path) == ()


def test_labels_of_a_dicom_series_are_in_patient_coordinates(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "patient" / "series"
    write_series(folder, "one")
    (folder / "notes.txt").write_text("not DICOM")
    (found,) = find_images(tmp_path / "in")
    assert isinstance(found, DicomSeries)
    assert len(found.files) == 3
    assert found.target == Path("patient/series.nii.gz")
    outcome = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m")
    assert (outcome.done, outcome.failed) == (1, ())
    labels = nibabel.load(tmp_path / "out" / "patient" / "series.nii.gz")
    np.testing.assert_allclose(labels.affine, load_series(found.files).affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(labels.dataobj).T, square((3, 24, 28), 1))
    assert labels.header["descrip"].item() == b"0 background, 1 bright"
    again = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m", resume=True)
    assert (again.done, again.skipped) == (0, 1)
    first = found.files[0]
    first.write_bytes(first.read_bytes() + b"\0\0")
    changed = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m", resume=True)
    assert changed.skipped == 0


def test_a_tilted_stack_keeps_its_position_and_a_bent_one_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in", "tilted", offsets_mm=(0, 2, 4))
    outcome = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m")
    assert (outcome.done, outcome.failed) == (1, ())
    affine = nibabel.load(tmp_path / "out" / "in.nii.gz").affine
    np.testing.assert_allclose(affine @ [0, 0, 2, 1], [10, -9, 12, 1], atol=1e-4)  # RAS of the last slice's first pixel
    write_series(tmp_path / "bent", "bent", offsets_mm=(0, 2, 0))
    (bent,) = find_images(tmp_path / "bent")
    with pytest.raises(DataError, match=r"lies 2\.00 mm off the line"):
        next(bent.frames())


def test_labels_of_a_dicom_series_are_placed_from_its_headers_alone(tmp_path: Path) -> None:
    """Pixels, some hundred megabytes of them in a CT, are read and decompressed only once, for the frames."""
    write_series(tmp_path / "in", "one", offsets_mm=(0, 2, 4))
    (image,) = find_images(tmp_path / "in")
    (volume,) = image.frames()
    for path in (tmp_path / "in").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.PixelData
        dataset.save_as(path)
    image.save_labels(tmp_path / "labels.nii.gz", np.zeros((1, 3, 24, 28), np.uint8), ("background", "bright"))
    np.testing.assert_allclose(nibabel.load(tmp_path / "labels.nii.gz").affine, volume.affine, atol=1e-5)


def test_linked_folders_are_followed_and_link_cycles_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "real" / "one", "one")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "patient").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "in")
    assert [image.target for image in find_images(tmp_path / "in")] == [Path("patient/one.nii.gz")]
    monkeypatch.chdir(tmp_path / "real" / "one")
    assert [image.target for image in find_images(Path())] == [Path("one.nii.gz")]


def test_two_series_in_one_folder_are_two_images(tmp_path: Path) -> None:
    for series in ("one", "two"):
        write_series(tmp_path / "in", series)
    found = find_images(tmp_path)
    assert [len(image.files) for image in found if isinstance(image, DicomSeries)] == [3, 3]
    assert len({image.target for image in found}) == 2
    assert {image.target.parent for image in found} == {Path("in")}


def test_inputs_without_an_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_text("x")
    with pytest.raises(MissingDataError, match="no NIfTI file, picture or DICOM series"):
        find_images(tmp_path)
    with pytest.raises(ConfigError, match="for a DICOM series give its folder"):
        find_images(tmp_path / "notes.pdf")
    (tmp_path / "a.nii.gz").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"")
    assert [type(image) for image in find_images(tmp_path)] == [NiftiImage, Picture]


@pytest.mark.parametrize(
    ("classes", "has_json"),
    [
        (("background", "bright"), False),
        (("background", *(f"structure of number {number}" for number in range(9))), True),
        (("background", "fígado"), True),
    ],
)
def test_class_names_that_do_not_fit_the_header_are_written_to_json(
    tmp_path: Path, classes: tuple[str, ...], has_json: bool
) -> None:
    write_series(tmp_path / "in" / "series", "one")
    nibabel.save(nibabel.Nifti1Image(np.ones((28, 24, 3), np.float32), np.eye(4)), tmp_path / "in" / "b.nii.gz")
    found = find_images(tmp_path / "in")
    assert len(found) == 2
    for image in found:
        target = tmp_path / "out" / image.target
        image.save_labels(target, np.zeros((1, 3, 24, 28), np.uint8), classes)
        names = target.with_name(target.name.replace(".nii.gz", ".json"))
        assert names.exists() == has_json
        if has_json:
            assert list(json.loads(names.read_text())["labels"].values()) == list(classes)


def test_an_image_with_another_channel_count_fails_with_advice(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (28, 24)).save(tmp_path / "in" / "colour.png")
    Image.fromarray(square((24, 28), 200)).save(tmp_path / "in" / "grey.png")
    outcome = predict([tmp_path / "in"], Threads(BrightIsForeground()), DATA, tmp_path / "out", "m")
    assert outcome.done == 1
    place = tmp_path / "in" / "colour.png"
    assert outcome.failed[0].error == (
        f"{place}: the image has 3 channels, but the model takes 1; save it in grey, or use a model that was "
        "trained on such images"
    )


def test_a_pedestrian_picture_has_the_same_scale_as_in_training(phantoms: Path) -> None:
    data = config_of("ppss", phantoms / "ppss").data
    reader = reader_of("ppss")
    case = next(case for case in reader.find_cases(phantoms / "ppss", data) if case.masks)
    trained, _ = prepare_image(reader.load_volume(case), data)
    image = Picture(case.images[0], Path("a.png"))
    (picture,) = image.frames()
    assert picture.shape == (1, 240, 120)
    found, grid = prepare_image(fitting(picture, image, data), data)
    assert grid.source_shape == (240, 120)
    # The reader resizes with anti-aliasing, so its values differ slightly.
    assert np.abs(found - trained).mean() < 0.1 * np.abs(prepare_image(picture, data)[0] - trained).mean()
