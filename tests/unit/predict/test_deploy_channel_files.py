"""Models of several channels: which files form an image, and the errors where they form none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from folder_bucket import serve_as_bucket
from numpy.typing import NDArray
from PIL import Image
from threshold_runner import read_ledger

from deploy.inputs.channel_files import ChannelFiles
from deploy.inputs.sources import find_sources
from deploy.predicting.batch import Outcome, plan, predict
from deploy.predicting.executor import Threads
from maag.config.data import DataConfig
from maag.data.cases import Case
from maag.data.catalog import reader_of
from maag.data.files.volume import load_labels
from maag.evaluate.prediction_files import prediction_files

TWO = DataConfig(
    dataset="nnunet", classes=("background", "bright"), channels=2, size_px=(16, 16), spacing_mm=1.0,
    normalization="unit",
)  # fmt: skip
THREE = replace(TWO, channels=3)
COLOUR = replace(THREE, dataset="folders")


class LastIsForeground:
    """What is bright in the last channel, and not in the first."""

    name = "last"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = ((images[:, -1] > 0.5) & (images[:, 0] < 0.5)).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


def square(start: int, value: int = 200) -> NDArray[np.uint8]:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[start : start + 6, 4:9] = value
    return pixels


def write_channel(path: Path, start: int, frames: int = 0) -> Path:
    """Write two slices with a bright square from row `start`, one row lower in each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volumes = [np.stack([square(start + time)] * 2, axis=2).transpose(1, 0, 2) for time in range(frames or 1)]
    voxels = np.stack(volumes, axis=3) if frames else volumes[0]
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 4.0, 1.0])), path)
    return path


BOTTOM = square(2, 1) * (np.arange(16)[:, None] >= 6)
"""The part of channel 1's square that is outside channel 0's."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "sub/b"):
        for number in range(2):
            write_channel(tmp_path / "in" / f"{name}_{number:04}.nii.gz", 2 * number)
    return tmp_path / "in"


def run(given: Path | str, out: Path, data: DataConfig = TWO, *, resume: bool = False) -> Outcome:
    return predict([given], Threads(LastIsForeground()), data, out, "m", resume)


def targets(*inputs: str | Path, data: DataConfig = TWO) -> list[str]:
    return sorted(source.target for source in find_sources(inputs, data=data))


def test_channel_files_are_joined_into_one_image_in_their_order(folder: Path, out: Path) -> None:
    outcome = run(folder, out)
    assert (outcome.done, outcome.failed) == (2, ())
    labels, spacing_mm = load_labels(out / "a.nii.gz", range(2))
    np.testing.assert_array_equal(labels, np.stack([BOTTOM] * 2))
    assert spacing_mm == (4.0, 1.0, 1.0)
    assert {line["source"] for line in read_ledger(out)} == {
        str(folder / "a_0000.nii.gz"),
        str(folder / "sub" / "b_0000.nii.gz"),
    }
    assert {line["target"] for line in read_ledger(out)} == {"a.nii.gz", "sub/b.nii.gz"}


def test_channel_files_are_read_and_named_as_in_training(folder: Path, out: Path) -> None:
    case = Case(
        case_id="a", patient_id="a", frame="a", images=(folder / "a_0000.nii.gz", folder / "a_0001.nii.gz"),
    )  # fmt: skip
    trained = reader_of("nnunet").load_volume(case)
    (found,) = ChannelFiles(case.images, Path("a.nii.gz")).frames()
    np.testing.assert_array_equal(found.voxels, trained.voxels)
    np.testing.assert_array_equal(found.affine, trained.affine)
    run(folder, out)
    assert prediction_files(out, [case]) == {"a": out / "a.nii.gz"}


@pytest.mark.parametrize("number", [0, 1])
def test_resume_redoes_an_image_when_any_channel_changes(folder: Path, out: Path, number: int) -> None:
    run(folder, out)
    assert run(folder, out, resume=True).skipped == 2
    write_channel(folder / f"a_{number:04}.nii.gz", 7)
    again = run(folder, out, resume=True)
    assert (again.done, again.skipped) == (1, 1)
    assert read_ledger(out)[-1]["target"] == "a.nii.gz"


def test_channel_files_are_joined_for_every_kind_of_input(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(folder.glob("*.nii.gz"))
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    for given in (files, [files[1], files[0], files[0]], [folder / "a_*"], [tmp_path / "list.txt"]):
        assert targets(*given) == ["a.nii.gz"]
    assert targets(folder / "**" / "*_000?.nii.gz") == ["a.nii.gz", "sub/b.nii.gz"]
    serve_as_bucket(monkeypatch, tmp_path)
    assert targets("s3://bkt/in") == targets("s3://bkt/in/**/*.nii.gz") == ["a.nii.gz", "sub/b.nii.gz"]
    # A model of one channel takes each file as an image.
    for data in (None, replace(TWO, channels=1)):
        assert len(plan([folder], tmp_path / "out", data=data)) == 4


def test_channel_files_in_a_bucket_are_joined_and_missing_ones_reported(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_bucket(monkeypatch, folder.parent)
    (folder / "sub" / "b_0001.nii.gz").unlink()
    first = run("s3://bkt/in", out)
    assert (first.done, len(first.failed)) == (1, 1)
    assert first.failed[0].source == "s3://bkt/in/sub/b_0000.nii.gz"
    assert "b_0001 is missing; put it beside s3://bkt/in/sub/b_0000.nii.gz" in str(first.failed[0].error)
    np.testing.assert_array_equal(load_labels(out / "a.nii.gz", range(2))[0], np.stack([BOTTOM] * 2))
    write_channel(folder / "sub" / "b_0001.nii.gz", 2)
    again = run("s3://bkt/in", out, resume=True)
    assert (again.done, again.skipped, again.failed) == (1, 1, ())
    write_channel(folder / "a_0001.nii.gz", 9)
    assert run("s3://bkt/in", out, resume=True).done == 1


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["c_0000.nii"], "channels, c_0000 to c_0001, but c_0001 is missing; put it beside {0}"),
        (["c_0001.nii"], "but c_0000 is missing; put it beside {0}"),
        (["c_0000.nii", "c_0002.nii"], "but c_0001 is missing; put it beside {0}"),
        (["c_0002.nii"], "but c_0000, c_0001 are missing; put them beside {0}"),
        (["c_0000.nii", "c_0001.nii", "c_0002.nii"], "and {2} is one too many; remove it"),
        (["c_0000.nii", "c_0001.nii", "c_0001.nii.gz"], "but {1} and {2} are the same channel; keep one of them"),
        (["c.nii"], "the image has 1 channel, but the model takes 2; save each channel as its own 2-D or 3-D file, "
                    "CASE_0000, CASE_0001, and give their folder"),
    ],
)  # fmt: skip
def test_files_that_form_no_image_fail_alone(folder: Path, out: Path, names: list[str], sentence: str) -> None:
    for name in names:
        write_channel(folder / name, 1)
    outcome = run(folder, out)
    assert (outcome.done, len(outcome.failed)) == (2, 1)
    assert sentence.format(*(folder / name for name in names)) in str(outcome.failed[0].error)
    assert outcome.failed[0].source == str(folder / names[0])


def test_cine_channels_are_joined_by_frame_and_refused_if_frame_counts_differ(folder: Path, out: Path) -> None:
    for number in range(2):
        write_channel(folder / f"a_{number:04}.nii.gz", 2 * number, frames=3)
    write_channel(folder / "sub" / "b_0001.nii.gz", 2, frames=3)
    write_channel(folder / "four.nii.gz", 2, frames=2)
    outcome = run(folder, out)
    errors = {entry.target: str(entry.error) for entry in outcome.failed}
    assert (outcome.done, set(errors)) == (1, {"sub/b.nii.gz", "four.nii.gz"})
    assert "a channel of 3 frames, but" in errors["sub/b.nii.gz"]
    assert "save each channel as its own 2-D or 3-D file" in errors["four.nii.gz"]
    labels = np.asarray(nibabel.load(out / "a.nii.gz").dataobj)
    assert labels.shape == (16, 16, 2, 3)
    assert labels.sum(axis=(0, 1, 2)).tolist() == [20, 20, 20]


def test_pictures_are_joined_only_for_models_with_separate_channels(tmp_path: Path, out: Path) -> None:
    scans = tmp_path / "in"
    scans.mkdir()
    for number in range(3):
        Image.fromarray(square(number)).save(scans / f"a_{number:04}.png")
    for number in (1, 2):
        Image.fromarray(np.stack([square(number)] * 3, axis=2)).save(scans / f"b_{number:04}.png")
    frames = [f"{name}_{number:04}.png" for name, numbers in (("a", (0, 1, 2)), ("b", (1, 2))) for number in numbers]
    assert targets(scans, data=COLOUR) == frames
    assert targets(scans, data=THREE) == ["a.png", *frames[3:]]
    assert run(scans, out, THREE).failed == ()
    with Image.open(out / "a.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), BOTTOM)
    assert json.loads((out / "a.json").read_text())["labels"]["1"] == "bright"


def test_only_colour_models_accept_grey_pictures(tmp_path: Path, out: Path) -> None:
    place = tmp_path / "in" / "grey.png"
    place.parent.mkdir()
    Image.fromarray(square(2)).save(place)
    seen = []

    class Recording(LastIsForeground):
        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            seen.append(images)
            return super().__call__(images)

    for dataset in ("ppss", "folders"):
        data = replace(COLOUR, dataset=dataset)
        assert predict([place], Threads(Recording()), data, out / dataset, "m").failed == ()
    for images in seen:
        assert images.shape == (1, 3, 16, 16)
        np.testing.assert_array_equal(images, images[:, :1].repeat(3, axis=1))
    np.testing.assert_array_equal(seen[1][0, 0], square(2) / np.float32(255))
    takes = "the image has 1 channel, but the model takes"
    (failed,) = run(place, out, THREE).failed
    assert f"{takes} 3; give a colour picture, or save each channel as its own 2-D or 3-D file, CASE_0000, " in str(
        failed.error
    )
    (failed,) = run(write_channel(tmp_path / "a.nii", 1), out, COLOUR).failed
    assert f"{takes} 3; give a colour picture" in str(failed.error)
    (failed,) = run(place, out).failed
    assert f"{takes} 2; save each channel" in str(failed.error)
