"""`maag evaluate`: which patients are evaluated, with which classes."""

from __future__ import annotations

import json
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
from maag.storage import read_json, write_json

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


def copy_patients(phantom_dir: Path, data: Path, *numbers: int) -> None:
    for number in numbers:
        (folder,) = phantom_dir.rglob(f"patient{number:03}")
        shutil.copytree(folder, data / folder.relative_to(phantom_dir))


def split_with(*val: str) -> Split:
    return Split(scheme="mine", scribbled=("patient001",), val=val)


def test_split_with_missing_patients_is_refused(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patients = sorted(path.name for path in phantom_dir.rglob("patient*") if path.is_dir())
    split = split_with(patients[1], "patient999")
    weights = write_weights(tmp_path / "run", split)
    write_json(tmp_path / "run" / "split.json", split.to_dict())
    assert run(weights, "--dataset", "acdc", "--data", phantom_dir) == 1
    assert "1 of 2 patients of split 'val' are missing: patient999" in capsys.readouterr().err


def test_weights_without_their_own_split_are_refused(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "run", split_with("patient003"))
    assert run(weights, "--dataset", "acdc", "--data", phantom_dir) == 2
    assert "--split val: there is no split.json next to this model" in capsys.readouterr().err
    other = split_with("patient002")
    write_json(tmp_path / "other.json", other.to_dict())
    assert run(weights, "--dataset", "acdc", "--data", phantom_dir, "--split-file", tmp_path / "other.json") == 2
    assert f"split {other.digest}, but the model was trained on split" in capsys.readouterr().err


def test_data_that_number_a_class_of_the_model_otherwise_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = tmp_path / "data", tmp_path / "weights.safetensors"
    write_phantom("nnunet", data, 4, seed=0)
    config = override(CONFIG, {"data.dataset": "nnunet", "data.classes": ["background", "RV", "MYO", "LV"]})
    save_segmentor(weights, config, build_segmentor(config).state_dict(), {"kind": "best"})
    described = read_json(data / "dataset.json")
    described["labels"] = {"background": 0, "LV": 1, "MYO": 2, "RV": 3, "ignore": 4}
    write_json(data / "dataset.json", described)
    assert run(weights, "--dataset", "nnunet", "--data", data, "--split", "all") == 2
    assert f"{weights} labels RV as 1, but it is 3 in {data} (background, LV, MYO, RV)" in capsys.readouterr().err
    described["labels"] = {"background": 0, "right ventricle": 1, "MYO": 2, "LV": 3, "ignore": 4}
    write_json(data / "dataset.json", described)
    assert run(weights, "--dataset", "nnunet", "--data", data, "--split", "all") == 0


@pytest.mark.slow
def test_predictions_are_scored_by_data_classes_and_header_differences_reported(
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
    reoriented, shifted = sorted((tmp_path / "labels").iterdir())[:2]
    image = nib.load(reoriented)
    reoriented_affine = nib.as_closest_canonical(image).affine @ np.diag([-1, -1, 1, 1])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), reoriented_affine), reoriented)
    image = nib.load(shifted)
    shifted_affine = image.affine.copy()
    shifted_affine[0, 3] += 50
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), shifted_affine), shifted)
    assert run(*words) == 0
    printed = capsys.readouterr().err.replace("\n", " ")
    assert "wall" in printed
    assert f": {reoriented}: its header has orientation" in printed
    assert f": {shifted}: its header has origin" in printed


@pytest.mark.slow
def test_cases_without_a_mask_are_excluded_and_counted(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, labels = tmp_path / "acdc", tmp_path / "labels"
    copy_patients(phantom_dir, data, 1, 2)
    labels.mkdir()
    first, *others = sorted(data.rglob("*_gt.nii.gz"))
    for mask in others:
        shutil.copy(mask, labels / mask.name.replace("_gt", ""))
    first.unlink()
    words = ("--dataset", "acdc", "--data", data, "--predictions", labels, "--out", tmp_path / "out")
    assert run(*words) == 0
    left_out = first.name.removesuffix("_gt.nii.gz")
    printed = " ".join(capsys.readouterr().err.split())
    assert f"1 of 4 cases of split 'all' have no mask and are left out, the first is {left_out}" in printed
    assert read_json(tmp_path / "out" / "report.json")["without_mask"] == [left_out]
    for mask in others:
        mask.unlink()
    assert run(*words) == 1
    assert "none of the 4 cases of split 'all' has a mask" in capsys.readouterr().err


def test_unreadable_cases_are_reported_and_the_rest_evaluated(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, labels = tmp_path / "acdc", tmp_path / "labels"
    copy_patients(phantom_dir, data, 1, 2)
    labels.mkdir()
    for mask in data.rglob("*_gt.nii.gz"):
        shutil.copy(mask, labels / mask.name.replace("_gt", ""))
    first, second, *others = sorted(labels.iterdir())
    image = next(data.rglob(second.name))
    for path in (first, image):
        path.write_bytes(path.read_bytes()[:60])
    words = ("--dataset", "acdc", "--data", data, "--predictions", labels, "--out", tmp_path / "out", "--json")
    assert run(*words) == 3
    printed = " ".join((captured := capsys.readouterr()).err.split())
    names = [path.name.removesuffix(".nii.gz") for path in (first, second)]
    assert f"2 of 4 cases could not be evaluated and are not in the means: {', '.join(names)}; correct them" in printed
    assert f"Problem: {first}: not a readable NIfTI file" in printed
    assert f"Problem: {image}: not a readable NIfTI file" in printed
    assert json.loads(captured.out)["summary"]["num_failed"] == 2
    report = read_json(tmp_path / "out" / "report.json")
    assert [*report["failed"]] == names
    assert [case["case_id"] for case in report["cases"]] == [path.name.removesuffix(".nii.gz") for path in others]
    assert f"could not be measured, left out: {', '.join(names)}" in (tmp_path / "out" / "report.html").read_text()
    for path in others:
        path.write_bytes(b"")
    assert run(*words) == 1
    assert f"none of the 4 cases of split 'all' could be measured; the first: {first}" in capsys.readouterr().err


@pytest.mark.slow
def test_report_page_shows_patient_images_only_on_request(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, labels = tmp_path / "acdc", tmp_path / "labels"
    copy_patients(phantom_dir, data, 1, 2, 3, 4)
    labels.mkdir()
    for mask in data.rglob("*_gt.nii.gz"):
        shutil.copy(mask, labels / mask.name.replace("_gt", ""))
    words = ("--dataset", "acdc", "--data", data, "--predictions", labels, "--out", tmp_path / "out")
    assert run(*words) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "LV ef percent 4 " in printed
    page = tmp_path / "out" / "report.html"
    assert "data:image" not in page.read_text()
    assert run(*words, "--pictures") == 0
    assert page.read_text().count("data:image") == 6
    assert len((tmp_path / "out" / "heart.csv").read_text().splitlines()) == 1 + 4 * 9


@pytest.mark.slow
def test_images_oriented_differently_than_training_images_are_reported(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "".join(nib.aff2axcodes(nib.load(next(phantom_dir.rglob("patient001_frame??.nii.gz"))).affine))
    other = own.translate(str.maketrans("LRPA", "RLAP"))
    config = override(CONFIG, {"data.classes": ["background", "RV", "MYO", "LV"]})
    split = split_with("patient002")
    for trained, is_reported in (([own], False), ([other], True), ([other, own], False), ([], False)):
        run_folder = tmp_path / "-".join(["run", *trained])
        info = {"kind": "best", "split_digest": split.digest, "orientations": trained}
        path = run_folder / "checkpoints" / "best.safetensors"
        path.parent.mkdir(parents=True)
        save_segmentor(path, config, build_segmentor(config).state_dict(), info)
        write_json(run_folder / "split.json", split.to_dict())
        assert run(path, "--dataset", "acdc", "--data", phantom_dir) == 0
        printed = capsys.readouterr().err.replace("\n", " ")
        assert (
            f"from the training images ({other})," in printed and f"patient002_frame01 ({own});" in printed
        ) is is_reported
