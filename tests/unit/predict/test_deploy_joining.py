"""Which files beside channels are not channels: labels with the bare case name, and numbered colour pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folder_bucket import serve_as_bucket
from PIL import Image

from deploy.inputs.passed_over import sentence
from deploy.inputs.sources import find_sources
from deploy.predicting.batch import plan
from maag.config.data import DataConfig

TWO = DataConfig(dataset="nnunet", classes=("background", "bright"), channels=2)
THREE = replace(TWO, channels=3)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def write_pictures(folder: Path, name: str, bands: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(3):
        pixels = np.full((4, 4, bands), number, np.uint8)
        Image.fromarray(pixels if bands > 1 else pixels[:, :, 0]).save(folder / f"{name}_{number:04}.png")


@pytest.mark.parametrize("input_kind", ["folder", "pattern", "files", "bucket"])
def test_a_file_with_the_bare_case_name_is_its_label(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, input_kind: str
) -> None:
    scans = touch(tmp_path / "in", "x_0000.nii.gz", "x_0001.nii.gz", "x.nii.gz", "y.nii.gz", "sub/x.nii.gz")
    serve_as_bucket(monkeypatch, tmp_path)
    given: list[str | Path] = {
        "folder": [scans],
        "pattern": [scans / "**" / "*.nii.gz"],
        "files": sorted(scans.rglob("*.nii.gz"))[1:],
        "bucket": ["s3://bkt/in"],
    }[input_kind]
    passed_over: dict[str, str] = {}
    found = sorted(source.target for source in plan(given, out, data=TWO, passed_over=passed_over))
    assert found == (["x.nii.gz", "y.nii.gz"] if input_kind == "files" else ["sub/x.nii.gz", "x.nii.gz", "y.nii.gz"])
    label = "s3://bkt/in/x.nii.gz" if input_kind == "bucket" else str(scans / "x.nii.gz")
    assert list(passed_over) == [label]
    assert sentence(passed_over) == (
        "Passed over 1 file that is a label rather than an image: 1 named as the image whose channels are beside them; "
        f"to segment it, give {label} in a separate call"
    )
    assert len(plan([label], out, data=TWO, passed_over={})) == 1


def test_a_single_channel_model_takes_a_file_with_the_bare_case_name(tmp_path: Path, out: Path) -> None:
    scans = touch(tmp_path / "in", "x_0000.nii.gz", "x.nii.gz")
    assert len(plan([scans], out, data=replace(TWO, channels=1))) == 2


@pytest.mark.parametrize("place", ["here", "bucket"])
def test_numbered_colour_pictures_are_separate_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write_pictures(tmp_path / "in", "grey", 1)
    write_pictures(tmp_path / "in", "video", 3)
    touch(tmp_path / "in", "bad_0000.png", "bad_0001.png", "bad_0002.png", "grey.png", "video.png")
    serve_as_bucket(monkeypatch, tmp_path)
    given = "s3://bkt/in" if place == "bucket" else str(tmp_path / "in")
    targets = {source.target for source in find_sources([given], data=THREE)}
    assert targets == {"bad.png", "grey.png", "video.png", *(f"video_000{number}.png" for number in range(3))}
