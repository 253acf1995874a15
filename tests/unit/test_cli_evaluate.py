"""`maag evaluate`: which patients are measured, with which classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_artifact import CONFIG as TINY

from maag.checkpoint import save_segmentor
from maag.cli import main
from maag.config.codec import override
from maag.data.catalog import write_phantom
from maag.data.splits import Split
from maag.models.build import build_segmentor
from maag.storage import write_json

CONFIG = override(TINY, {"segmentor.width": 2})


def run(*words: object) -> object:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, words)])
    return caught.value.code


def write_weights(folder: Path, split: Split) -> Path:
    path = folder / "checkpoints" / "best.safetensors"
    path.parent.mkdir(parents=True)
    save_segmentor(path, CONFIG, build_segmentor(CONFIG).state_dict(), {"kind": "best", "split_digest": split.digest})
    return path


def split_with(*val: str) -> Split:
    return Split(scheme="mine", scribbled=("patient001",), val=val)


def test_a_split_is_measured_whole_or_not_at_all(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(path.name for path in phantom_dir.rglob("patient*") if path.is_dir())
    split = split_with(there[1], "patient999")
    weights = write_weights(tmp_path / "run", split)
    write_json(tmp_path / "run" / "split.json", split.to_dict())
    assert run(weights, "--dataset", "acdc", "--data", phantom_dir) == 1
    assert "1 of 2 patients of split 'val' are not in it: patient999" in capsys.readouterr().err


def test_without_a_split_nobody_is_measured_on_what_was_trained_on_unasked(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "run", split_with("patient003"))
    assert run(weights, "--dataset", "acdc", "--data", phantom_dir) == 2
    assert "--split val: no split.json is beside this model" in capsys.readouterr().err
    other = split_with("patient002")
    write_json(tmp_path / "other.json", other.to_dict())
    assert run(weights, "--dataset", "acdc", "--data", phantom_dir, "--split-file", tmp_path / "other.json") == 2
    assert f"split {other.digest}, but the model was trained on split" in capsys.readouterr().err


def test_predictions_are_measured_with_the_classes_of_the_data_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantom("folders", tmp_path / "folders", 4, seed=0)
    shutil.rmtree(tmp_path / "folders" / "unlabelled", ignore_errors=True)
    with_mask = {path.name for path in (tmp_path / "folders" / "masks").iterdir()}
    for image in (tmp_path / "folders" / "images").iterdir():
        if image.name not in with_mask:
            image.unlink()
    shutil.rmtree(tmp_path / "folders" / "scribbles")
    (tmp_path / "folders" / "cases.csv").unlink()
    (tmp_path / "folders" / "classes.txt").write_text("background\nRV\nwall\nLV\n")
    monkeypatch.setenv("MAAG_DATA", str(tmp_path))
    words = ("--dataset", "folders", "--predictions", tmp_path / "labels", "--out", tmp_path / "out")
    shutil.copytree(tmp_path / "folders" / "masks", tmp_path / "labels")
    turned = sorted((tmp_path / "labels").iterdir())[0]
    image = nib.load(turned)
    axes = nib.as_closest_canonical(image).affine @ np.diag([-1, -1, 1, 1])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), axes), turned)
    assert run(*words) == 0
    told = capsys.readouterr().err
    assert "wall" in told
    assert f"Note: {turned}: its header has axes" in told.replace("\n", " ")
