"""Users' own data: nnU-Net's layout, plain folders and their tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from native_phantoms import config_of, first, problems
from PIL import Image

from maag.data.cache.preparing import prepare
from maag.data.catalog import find_cases, preset, reader_of
from maag.data.check import check
from maag.errors import ConfigError, DataError


def test_nnunet_tells_its_classes_and_knows_scribbles_by_ignore(phantoms: Path) -> None:
    root = phantoms / "nnunet"
    config = config_of("nnunet", root)
    assert config.data.classes == ("background", "RV", "MYO", "LV")
    assert config.data.unlabelled_value == 4
    cases = find_cases(config.data, root)
    assert [(bool(case.scribbles), bool(case.masks), case.part) for case in cases] == [
        *[(True, False, "train"), (False, True, "train")] * 2,
        (False, True, "test"),
    ]


def test_nnunet_frames_of_a_patient_stay_together(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("nnunet")
    for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        for number in (0, 1):
            place = root / folder / f"heart_{number:03}{ending}.nii.gz"
            place.rename(place.with_name(f"anna_frame{number:02}{ending}.nii.gz"))
    data = config_of("nnunet", root).data
    cases = find_cases(data, root)
    assert [case.patient_id for case in cases if case.case_id.startswith("anna")] == ["anna", "anna"]
    for folder, ending in (("images", "_0000"), ("labels", "")):
        place = root / f"{folder}Tr" / f"anna_frame01{ending}.nii.gz"
        place.rename(root / f"{folder}Ts" / place.name)
    with pytest.raises(DataError, match="patient anna has case anna_frame00 in train, case anna_frame01 in test"):
        find_cases(data, root)


def test_nnunet_without_ignore_has_masks_alone(copy_of: Callable[[str], Path]) -> None:
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
    assert 'which nnU-Net\'s dataset.json calls "labels" and "ignore"' in found[0]
    (root / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match=r'dataset\.json: "labels" must name "background": 0'):
        reader_of("nnunet").settings(root)
    with pytest.raises(DataError, match=r'dataset\.json: "labels" must name "background": 0'):
        find_cases(data, root)


@pytest.mark.parametrize("name", ["heart[1]", "heart*", "heart?", "a]b["])
def test_nnunet_names_are_no_patterns(copy_of: Callable[[str], Path], name: str) -> None:
    root = copy_of("nnunet")
    for path in (root / "imagesTr" / "heart_000_0000.nii.gz", root / "labelsTr" / "heart_000.nii.gz"):
        path.rename(path.with_name(path.name.replace("heart_000", name)))
    (case,) = (case for case in find_cases(config_of("nnunet", root).data, root) if case.case_id == name)
    assert case.scribbles


def test_nnunet_channels_and_pictures(tmp_path: Path) -> None:
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
        ({"background": 0, "a": "one"}, r"label 'a' has \"one\", which is no whole number; correct it"),
        ({"background": 0, "a": True}, r"label 'a' has true, which is no whole number"),
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
def test_a_description_that_cannot_be_used_is_named(
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
def test_nnunet_descriptions_of_the_first_version_are_read_alike(
    copy_of: Callable[[str], Path], labels: dict[str, object], channels: dict[str, object]
) -> None:
    root = copy_of("nnunet")
    settings, data = reader_of("nnunet").settings(root), config_of("nnunet", root).data
    cases = find_cases(data, root)
    (root / "dataset.json").write_text(json.dumps({"labels": labels, **channels}))
    assert reader_of("nnunet").settings(root) == settings
    assert find_cases(data, root) == cases


def test_folders_know_raters_splits_and_supervision(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    scribble = root / "scribbles" / "heart_000_scribble.nii.gz"
    for rater in ("ann", "bob"):
        (root / "scribbles" / rater).mkdir()
        shutil.copy(scribble, root / "scribbles" / rater / "heart_000.nii.gz")
    scribble.unlink()
    (root / "cases.csv").write_text(
        "case,patient,split,supervision,rater\nheart_000,p1,train,,ann\nheart_000,p1,train,,bob\n"
        "heart_003,p1,train,unlabelled,\nheart_002,p2,val,,\n"
    )
    cases = {case.case_id: case for case in find_cases(config_of("folders", root).data, root)}
    assert [scribble.rater for scribble in cases["heart_000"].scribbles] == ["ann", "bob"]
    assert cases["heart_000"].patient_id == cases["heart_003"].patient_id == "p1"
    assert cases["heart_003"].scribbles == ()
    assert cases["heart_002"].part == "val"
    assert cases["heart_004"].masks == ()


def test_two_frames_in_folders_are_of_one_patient_unless_a_table_says_otherwise(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    for number, name in enumerate(("anna_frame01", "anna_frame12")):
        (root / "images" / f"heart_00{number}.nii.gz").rename(root / "images" / f"{name}.nii.gz")
        for file in (*root.glob(f"scribbles/heart_00{number}*"), *root.glob(f"masks/heart_00{number}*")):
            file.rename(file.with_name(file.name.replace(f"heart_00{number}", name)))

    def patients() -> list[str]:
        return [
            case.patient_id
            for case in find_cases(config_of("folders", root).data, root)
            if case.case_id.startswith("anna")
        ]

    (root / "cases.csv").unlink(missing_ok=True)
    assert patients() == ["anna", "anna"]
    (root / "cases.csv").write_text("case,patient\nanna_frame12,berta\n")
    assert patients() == ["anna", "berta"]


def test_the_value_of_unlabelled_pixels_must_be_said(phantoms: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not said; say it with --set data\.unlabelled_value=N"):
        check(phantoms / "folders", preset("folders", "fast", phantoms / "folders").data)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("case,colour\nheart_000,red\n", "columns case, colour; expected case"),
        ("case\nnobody\n", "line 2: case 'nobody' has no image"),
        ("case,split\nheart_000,fold1\n", "line 2: split 'fold1'; it must be one of train, val, test"),
        ("case,supervision\nheart_000,guess\n", "line 2: supervision 'guess'"),
        ("case,patient\nheart_000,a\nheart_000,b\n", "line 3: patient b of case heart_000 was a before"),
        (
            "case,supervision\nheart_000,masks\nheart_000,scribbles\n",
            "line 3: supervision scribbles of case heart_000 was masks before; a case has one supervision",
        ),
        ("case,patient\nheart_000,a,b\n", "line 2: 3 cells for 2 columns; put a cell with a comma in quotes"),
        (f"case\n{'x' * 200_000}\n", "not a readable table .field larger than field limit"),
        ("", "columns ; expected case"),
        (
            "case,patient,split\nheart_000,a,train\nheart_002,a,val\n",
            "patient a has case heart_000 in train, case heart_002 in val; all cases of a patient belong in one part",
        ),
        ("case,rater\nheart_000,anna\n", "case heart_000 has no scribble by rater anna, but by scribbles"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(copy_of: Callable[[str], Path], content: str, sentence: str) -> None:
    root = copy_of("folders")
    (root / "cases.csv").write_text(content)
    with pytest.raises(DataError, match=sentence):
        find_cases(config_of("folders", root).data, root)


def test_blanks_around_the_cells_of_a_table_count_for_nothing(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    (root / "cases.csv").write_text(
        "case, patient ,split\nheart_000, a, train\n\n,,\nheart_002,a ,train,,\nheart_003\n"
    )
    cases = {case.case_id: case for case in find_cases(config_of("folders", root).data, root)}
    assert [cases[f"heart_00{n}"].patient_id for n in (0, 2, 3)] == ["a", "a", "heart_003"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["classes.txt", "cases.csv"])
def test_text_that_is_not_utf_8_is_named(copy_of: Callable[[str], Path], name: str, encoding: str) -> None:
    root = copy_of("folders")
    data = config_of("folders", root).data
    text = {"classes.txt": "background\nfígado\n", "cases.csv": "case,patient\nheart_000,José\n"}[name]
    (root / name).write_text(text, encoding="utf-8-sig")
    reader_of("folders").settings(root)
    find_cases(data, root)
    (root / name).write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=rf"{name}: .*; save it as UTF-8"):
        reader_of("folders").settings(root) if name == "classes.txt" else find_cases(data, root)


def test_a_byte_order_mark_is_no_part_of_a_class(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    (root / "classes.txt").write_text("background\nleaf\n", encoding="utf-8-sig")
    assert reader_of("folders").settings(root)["data.classes"] == ["background", "leaf"]


@pytest.mark.parametrize(("text", "found"), [("wall\npool\n", "wall"), ("\n", "nowhere")])
def test_classes_begin_with_the_background(copy_of: Callable[[str], Path], text: str, found: str) -> None:
    root = copy_of("folders")
    (root / "classes.txt").write_text(text)
    with pytest.raises(
        DataError, match=rf"classes\.txt: the first class is {found}; the first line must be background"
    ):
        reader_of("folders").settings(root)


def test_a_label_without_an_image_is_named(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    shutil.copy(first(root, "masks/*"), root / "masks" / "stranger.nii.gz")
    with pytest.raises(DataError, match="there is no image stranger in images/; name it as its image"):
        find_cases(config_of("folders", root).data, root)


@pytest.mark.parametrize("name", ["folders", "nnunet"])
def test_bad_images_do_not_keep_a_check_from_the_others(copy_of: Callable[[str], Path], name: str) -> None:
    root = copy_of(name)
    images = sorted(path for path in root.rglob("images*/*") if path.is_file())
    images[0].write_text("no image")
    images[1].unlink()
    images[1].symlink_to("nowhere")
    found = problems(name, root)
    assert f"{images[0]}: not a readable NIfTI file" in found
    assert f"cannot read {images[1]}" in found
    for path in images[2:]:
        path.write_text("no image")
    with pytest.raises(DataError, match="not a readable NIfTI file"):
        preset(name, "paper", root)


@pytest.mark.parametrize("name", ["folders", "nnunet"])
def test_labels_that_lie_elsewhere_than_their_image_are_noted(
    copy_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    root = copy_of(name)
    for folder in ("labelsTr", "masks", "scribbles"):
        for path in sorted(root.glob(f"{folder}/*"))[:2]:
            image = nib.load(path)
            affine = image.affine.copy()
            affine[:3, 3] += 30
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    moved = 4 if name == "folders" else 2
    data = config_of(name, root).data
    (said,) = (note for note in check(root, data).notes if "its header has the origin" in note)
    assert said.startswith(f"{moved} cases, ")
    notes = [note for case in prepare(root, data, tmp_path / "cache").cases for note in case.notes]
    assert sum("(30, 30, 30) mm, its image's (0, 0, 0) mm" in note for note in notes) == moved
