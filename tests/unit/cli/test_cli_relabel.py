"""`maag data relabel`: the split that it uses, and the next command that it suggests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_artifact import CONFIG, tiny_manifest, write_tiny_artifact

from deploy.artifact.manifest import Member, write_manifest
from maag.checkpoint import save_segmentor
from maag.cli import main
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.catalog import find_cases
from maag.data.slices.supervision import ineffective_settings
from maag.data.splits import Split
from maag.models.build import build_segmentor
from maag.storage import read_json, write_json


def run(*words: object) -> object:
    with pytest.raises(SystemExit) as caught:
        main(["data", "relabel", *map(str, words)])
    return caught.value.code


def write_run(folder: Path, split: Split, changes: Mapping[str, object] = {}) -> Path:
    """A run whose model predicts background everywhere with certainty."""
    config = override(Config(), {"data.size_px": [32, 32], "data.spacing_mm": 4.0, "segmentor.width": 2, **changes})
    weights = build_segmentor(config).state_dict()
    weights["classify.bias"][0] += 100
    path = folder / "checkpoints" / "best.safetensors"
    path.parent.mkdir(parents=True)
    save_segmentor(path, config, weights, {"kind": "best", "split_digest": split.digest})
    write_json(folder / "split.json", split.to_dict())
    return folder


def patients_of(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("patient*") if path.is_dir())


def test_split_other_than_the_models_own_is_refused(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third, *_ = patients_of(phantom_dir)
    own = Split(scheme="own", scribbled=(first, second), val=(third,))
    # With this split, the model was trained on a patient that validates the second stage.
    other = Split(scheme="other", scribbled=(first, third), val=(second,))
    model = write_run(tmp_path / "run", own)
    write_json(tmp_path / "other.json", other.to_dict())
    words = (model, "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "labels")
    assert run(*words, "--split-file", tmp_path / "other.json") == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"split {other.digest}, but the model was trained on split {own.digest}" in printed
    assert not (tmp_path / "labels").exists()
    assert run(*words, "--split-file", model / "split.json") == 0


def test_an_average_of_runs_on_different_splits_is_refused(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_artifact(tmp_path / "model")
    first, second, third, *_ = patients_of(phantom_dir)
    # Each network was trained on the patient that validates the other.
    splits = [Split(scheme="a", scribbled=(first, third), val=(second,)),
              Split(scheme="b", scribbled=(first, second), val=(third,))]  # fmt: skip
    members = tuple(
        Member(checkpoint=split.scheme, sha256="00", kind="best", split_digest=split.digest, config=CONFIG)
        for split in splits
    )
    manifest = tiny_manifest(tmp_path / "model")
    write_manifest(tmp_path / "model", replace(manifest, source=replace(manifest.source, members=members)))
    write_json(tmp_path / "split.json", splits[0].to_dict())
    words = (tmp_path / "model", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "labels")
    assert run(*words, "--split-file", tmp_path / "split.json") == 2
    assert "trained on 2 different splits" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "labels").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cine", [True, False])
def test_suggested_next_command_reads_the_labels_of_a_cine(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cine: bool
) -> None:
    root = Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))
    first, second, third, *_ = patients_of(root)
    image = nib.load(next(root.rglob(f"{first}_frame01.nii.gz")))
    frames = np.stack([np.asarray(image.dataobj)] * 3, axis=-1)
    nib.save(nib.Nifti1Image(frames, image.affine), root / "training" / first / f"{first}_4d.nii.gz")
    split = Split(scheme="own", scribbled=(first,), unlabelled=(second,), val=(third,))
    semi = {"data.supervision": "semi", "data.cine": cine}
    model, labels = write_run(tmp_path / "run", split, semi), tmp_path / "labels"
    words = (model, "--dataset", "acdc", "--data", root, "--out", labels, "--entropy", 1, "--with-unlabelled")
    assert run(*words) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert ("split.json --set data.supervision=semi, with settings" in printed) == cine
    again = Split.from_dict(read_json(labels / "split.json"))
    config = override(Config(), semi)
    assert bool(ineffective_settings(config, again, ["labels"])) != cine
    found = find_cases(config.data, root, [str(labels)])
    assert sum(case.time is not None and bool(case.scribbles) for case in found) == (2 if cine else 0)


@pytest.mark.slow
def test_unreadable_cases_are_reported_and_the_rest_labelled(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))
    first, second, third, fourth, *_ = patients_of(root)
    half_lost, _ = sorted(root.rglob(f"{first}_frame??.nii.gz"))
    wholly_lost = sorted(root.rglob(f"{second}_frame??.nii.gz"))
    for path in (half_lost, *wholly_lost):
        path.write_bytes(path.read_bytes()[:60])
    split = Split(scheme="own", scribbled=(first, second, third), val=(fourth,))
    model, labels = write_run(tmp_path / "run", split, {"data.raters": "weighted"}), tmp_path / "labels"
    words = (model, "--dataset", "acdc", "--data", root, "--scribbles", "own", "--scribbles", "simulated:curve")
    assert run(*words, "--out", labels) == 3
    printed = " ".join(capsys.readouterr().err.split())
    names = [path.name.removesuffix(".nii.gz") for path in (half_lost, *wholly_lost)]
    assert f"3 of 6 cases got no labels: {', '.join(names)}; correct them" in printed
    assert f"Problem: {half_lost}: not a readable NIfTI file" in printed
    assert Split.from_dict(read_json(labels / "split.json")).scribbled == (first, third)
    assert len(list(labels.glob("*_scribble.nii.gz"))) == 3
    report = read_json(labels / "relabelling.json")
    assert [*report["failed"]] == names
    assert (report["num_cases"], report["num_patients"]) == (3, 2)
    assert report["split_digest"] == Split.from_dict(read_json(labels / "split.json")).digest
    for path in root.rglob("*_frame??.nii.gz"):
        path.write_bytes(b"")
    assert run(*words, "--out", tmp_path / "none") == 1
    assert "none of the 6 cases can be read; the first: " in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
