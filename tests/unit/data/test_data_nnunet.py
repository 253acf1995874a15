"""Data in nnU-Net's layout, with either version of dataset.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from phantom_datasets import config_of
from PIL import Image

from maag.data.catalog import find_cases, preset, reader_of
from maag.data.check import check
from maag.errors import DataError


def test_nnunet_takes_classes_from_dataset_json_and_recognises_scribbles_by_ignore(phantoms: Path) -> None:
    root = phantoms / "nnunet"
    config = config_of("nnunet", root)
    assert config.data.classes == ("background", "RV", "MYO", "LV")
    assert config.data.unlabelled_value == 4
    cases = find_cases(config.data, root)
    assert [(bool(case.scribbles), bool(case.masks), case.part) for case in cases] == [
        *[(True, False, "train"), (False, True, "train")] * 2,
        (False, True, "test"),
    ]


def test_nnunet_frames_of_one_patient_must_stay_in_one_part(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("nnunet")
    for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        for number in (0, 1):
            path = root / folder / f"heart_{number:03}{ending}.nii.gz"
            path.rename(path.with_name(f"anna_frame{number:02}{ending}.nii.gz"))
    data = config_of("nnunet", root).data
    cases = find_cases(data, root)
    assert [case.patient_id for case in cases if case.case_id.startswith("anna")] == ["anna", "anna"]
    for folder, ending in (("images", "_0000"), ("labels", "")):
        path = root / f"{folder}Tr" / f"anna_frame01{ending}.nii.gz"
        path.rename(root / f"{folder}Ts" / path.name)
    with pytest.raises(DataError, match="patient anna has case anna_frame00 in train, case anna_frame01 in test"):
        find_cases(data, root)


def test_nnunet_without_an_ignore_label_has_only_masks(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("nnunet")
    description = json.loads((root / "dataset.json").read_text())
    del description["labels"]["ignore"]
    (root / "dataset.json").write_text(json.dumps(description))
    data = config_of("nnunet", root).data
    assert not [case for case in find_cases(data, root) if case.scribbles]
    found = check(root, data).problems
    assert len(found) == 2
    assert "heart_000.nii.gz: " in found[0]
    assert "voxels have label 4, allowed are 0" in found[0]
    assert 'in nnU-Net\'s dataset.json "labels" and "ignore"' in found[0]
    (root / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match=r'dataset\.json: "labels" must name "background": 0'):
        reader_of("nnunet").settings(root)
    with pytest.raises(DataError, match=r'dataset\.json: "labels" must name "background": 0'):
        find_cases(data, root)


@pytest.mark.parametrize("name", ["heart[1]", "heart*", "heart?", "a]b["])
def test_nnunet_case_names_are_not_treated_as_glob_patterns(copy_of: Callable[[str], Path], name: str) -> None:
    root = copy_of("nnunet")
    for path in (root / "imagesTr" / "heart_000_0000.nii.gz", root / "labelsTr" / "heart_000.nii.gz"):
        path.rename(path.with_name(path.name.replace("heart_000", name)))
    (case,) = (case for case in find_cases(config_of("nnunet", root).data, root) if case.case_id == name)
    assert case.scribbles


def test_nnunet_files_that_belong_to_no_case_are_refused(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("nnunet")
    data = config_of("nnunet", root).data
    image = root / "imagesTr" / "heart_000_0000.nii.gz"
    renamed = image.rename(root / "imagesTr" / "heart_000.nii.gz")
    with pytest.raises(DataError) as caught:
        find_cases(data, root)
    assert str(caught.value).startswith(f"{renamed}: its name has no channel")
    assert f"name it {image.name}, or remove it" in str(caught.value)
    renamed.unlink()
    with pytest.raises(DataError) as caught:
        find_cases(data, root)
    label = root / "labelsTr" / "heart_000.nii.gz"
    assert str(caught.value).startswith(f"{label}: there is no image heart_000_0000 in imagesTr/")


def test_nnunet_reads_pictures_as_channels(tmp_path: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    labels = {"background": 0, "leaf": 1}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "a", "1": "b"}}))
    for name in "ab":
        for channel in (0, 1):
            grey = np.full((20, 30), 10 + channel, np.uint8)
            Image.fromarray(grey).save(tmp_path / "imagesTr" / f"{name}_{channel:04}.png")
        Image.fromarray(np.eye(20, 30).astype(np.uint8)).save(tmp_path / "labelsTr" / f"{name}.png")
    config = preset("nnunet", "paper", tmp_path)
    assert (config.data.channels, config.data.size_px, config.data.spacing_mm) == (2, (32, 32), 1.0)
    volume = reader_of("nnunet").load_volume(find_cases(config.data, tmp_path)[0])
    assert volume.voxels.shape == (2, 1, 20, 30)
    assert volume.voxels[:, 0, 0, 0].tolist() == [10, 11]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"background": 0, "ignore": 1, "a": 2}, r"labels \[0, 2\] must be 0 to 1 without a gap"),
        ({"background": 0, "a": 1, "ignore": 5}, r'"ignore" is 5, it must be the last label, 2; renumber it'),
        ({"background": 0, "a": [1, 2], "b": 2}, r"label 'a' is a region \(\[1, 2\]\); maag learns one class"),
        ({"background": 0, "a": "one"}, r"label 'a' is \"one\", which is no whole number; correct it"),
        ({"background": 0, "a": True}, r"label 'a' is true, which is no whole number"),
        ({"0": "background", "1": "a", "2": "a"}, r"labels 1 and 2 are both called 'a'"),
        ({"0": "background", "1": "ignore", "2": "a"}, r"labels \[0, 2\] must be 0 to 1 without a gap"),
        ({"0": "background", "1": "a", "5": "ignore"}, r'"ignore" is 5, it must be the last label, 2; renumber it'),
        ({"0": "1", "1": "0"}, r'"labels" must name "background": 0'),
        ({"0": "background", "a": 1}, r'"labels" must name "background": 0'),
        ({"background": 1, "a": 0}, r'"labels" must name "background": 0'),
        ([], r'"labels" must name "background": 0'),
        ({"a": 1}, r'"labels" must name "background": 0'),
    ],
)
def test_an_invalid_dataset_json_is_refused(
    copy_of: Callable[[str], Path], labels: dict[str, object], sentence: str
) -> None:
    root = copy_of("nnunet")
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "x"}}))
    with pytest.raises(DataError, match=sentence):
        reader_of("nnunet").settings(root)


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "RV", "2": "MYO", "3": "LV", "4": "ignore"},
        {"4": "ignore", "3": "LV", "2": "MYO", "1": "RV", "0": "background"},
        {"background": "0", "RV": "1", "MYO": 2, "LV": "3", "ignore": "4"},
    ],
)
@pytest.mark.parametrize("channels", [{"modality": {"0": "MRI"}}, {"modality": "cineMRI"}, {"channel_names": ["MRI"]}])
def test_dataset_json_of_the_first_nnunet_version_is_read_alike(
    copy_of: Callable[[str], Path], labels: dict[str, object], channels: dict[str, object]
) -> None:
    root = copy_of("nnunet")
    settings, data = reader_of("nnunet").settings(root), config_of("nnunet", root).data
    cases = find_cases(data, root)
    (root / "dataset.json").write_text(json.dumps({"labels": labels, **channels}))
    assert reader_of("nnunet").settings(root) == settings
    assert find_cases(data, root) == cases
