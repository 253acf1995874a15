"""Every data set in its native format, and what is wrong with it said in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from maag.config.presets import apply_preset
from maag.config.schema import Config
from maag.data import catalog
from maag.data.case_arrays import read_case
from maag.data.cases import Reader
from maag.data.catalog import READERS, find_cases, preset, reader_of, write_phantom
from maag.data.check import check
from maag.data.dicom import load_series, order_of_slices, read_geometry, require_even
from maag.errors import ConfigError, DataError, MissingDataError

NATIVE = {"lvsc": 3, "chaos": 3, "chaos-ct": 2, "ppss": 4, "nnunet": 5, "folders": 5}
"""Number of cases by name: so few that each oddity is there."""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    for name, count in NATIVE.items():
        write_phantom(name, out / name, count, seed=2)
    return out


@pytest.fixture
def copy_of(phantoms: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy to spoil; of cines the first phase, for hundreds of files take seconds."""
    first_phase = shutil.ignore_patterns("*_ph[!0].*")
    return lambda name: Path(shutil.copytree(phantoms / name, tmp_path / name, ignore=first_phase))


def config_of(name: str, directory: Path) -> Config:
    from maag.config.codec import override

    config = preset(name, "fast", directory)
    return override(config, {"data.unlabelled_value": 4}) if name == "folders" else config


def problems(name: str, directory: Path) -> str:
    return "\n".join(check(directory, config_of(name, directory).data).problems)


def test_every_reader_has_its_defaults() -> None:
    for name in READERS:
        assert preset(name, "fast").data.dataset == name
        assert max(preset(name, "fast").data.size_px) <= 96


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
def test_a_phantom_is_read_whole_and_is_the_same_for_a_seed(name: str, phantoms: Path, tmp_path: Path) -> None:
    config = config_of(name, phantoms / name)
    report = check(phantoms / name, config.data)
    assert report.problems == ()
    assert all(item.cases_in_masks for item in report.classes)
    write_phantom(name, tmp_path / "again", NATIVE[name], seed=2)
    write_phantom(name, tmp_path / "other", NATIVE[name], seed=3)
    bytes_of = {
        root: {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (phantoms / name, tmp_path / "again", tmp_path / "other")
    }
    one, again, other = bytes_of.values()
    assert one == again
    assert one != other


@pytest.mark.parametrize("name", NATIVE)
def test_an_empty_folder_is_named_with_the_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=f"no case of {name} in it; expected .*`maag data phantom --dataset {name}"
    ):
        find_cases(config_of(name, tmp_path).data, tmp_path)


@pytest.mark.parametrize("name", ["lvsc", "chaos", "chaos-ct"])
def test_dicom_slices_are_stacked_as_they_lie(name: str, phantoms: Path) -> None:
    data = config_of(name, phantoms / name).data
    case = find_cases(data, phantoms / name)[0]
    volume = reader_of(name).load_volume(case)
    heights = {read_geometry(path).height_mm: path for path in case.images}
    lowest = pydicom.dcmread(heights[min(heights)])
    stored = lowest.pixel_array.astype(float) + float(lowest.get("RescaleIntercept", 0))
    np.testing.assert_allclose(volume.voxels[0, 0], stored)
    between = (max(heights) - min(heights)) / (len(heights) - 1)
    assert volume.spacing_mm[0] == pytest.approx(between)
    x, y, z = (float(value) for value in lowest.ImagePositionPatient)
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [-x, -y, z, 1], atol=1e-4)
    assert volume.affine[2, 2] > 0


def test_lvsc_leaves_long_axes_out_and_odd_slices_apart(phantoms: Path) -> None:
    cases = find_cases(config_of("lvsc", phantoms / "lvsc").data, phantoms / "lvsc")
    assert not [path for case in cases for path in case.images if "_LA" in path.name]
    assert {case.patient_id for case in cases} == {f"DET{100 * n + 1:07}" for n in range(1, 4)}
    odd = [case for case in cases if case.case_id.endswith("_size2")]
    assert {case.patient_id for case in odd} == {"DET0000301"}
    assert all(len(case.images) == len(case.masks) for case in cases)


@pytest.mark.parametrize("kept", [[0, 1, 2, 4], [0, 1, 3]])
def test_a_gap_that_slices_of_another_size_leave_is_not_spread_over_the_others(phantoms: Path, kept: list[int]) -> None:
    case = find_cases(config_of("lvsc", phantoms / "lvsc").data, phantoms / "lvsc")[0]
    ordered = [case.images[place] for place in order_of_slices(case.images)]
    whole, gappy = load_series(ordered), load_series([ordered[place] for place in kept])
    assert gappy.spacing_mm == pytest.approx(whole.spacing_mm)
    np.testing.assert_allclose(gappy.affine, whole.affine, atol=1e-4)
    with pytest.raises(DataError, match="restore what is missing"):
        require_even([ordered[place] for place in kept])


def test_lvsc_masks_may_lie_in_a_folder_of_their_own(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("lvsc")
    before = find_cases(config_of("lvsc", root).data, root)
    (root / "masks").mkdir()
    for path in list(root.rglob("*.png")):
        path.rename(root / "masks" / path.name)
    after = find_cases(config_of("lvsc", root).data, root)
    assert [len(case.masks) for case in after] == [len(case.masks) for case in before]


def test_chaos_pairs_by_place_what_names_do_not(phantoms: Path) -> None:
    root = phantoms / "chaos"
    data = config_of("chaos", root).data
    by_name = [reader_of("chaos").load_mask(case, data).labels for case in find_cases(data, root)]
    from dataclasses import replace

    out_phase = replace(data, modality="t1out")  # whose names are not those of the masks
    cases = find_cases(out_phase, root)
    assert cases[0].frame == "t1out"
    for case, expected in zip(cases, by_name, strict=True):
        np.testing.assert_array_equal(reader_of("chaos").load_mask(case, out_phase).labels, expected)
    t2 = find_cases(replace(data, modality="t2spir"), root)
    assert len(t2[0].images) != len(cases[0].images)


def test_chaos_names_a_series_with_a_gap(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("chaos")
    data = config_of("chaos", root).data
    case = find_cases(data, root)[0]
    gone = case.images[order_of_slices(case.images)[2]]
    gone.unlink()
    (gone.parents[2] / "Ground" / f"{gone.stem}.png").unlink(missing_ok=True)
    assert any("restore what is missing" in problem for problem in map(str, check(root, data).problems))


def test_chaos_counts_stray_greys(phantoms: Path) -> None:
    root = phantoms / "chaos"
    notes = check(root, config_of("chaos", root).data).notes
    assert any("mask pixels have a grey of no organ, taken as background" in note for note in notes)


@pytest.mark.parametrize("nesting", ["Train_Sets", "Train_Sets/MR", "."])
def test_chaos_may_be_pointed_at_from_any_height(phantoms: Path, nesting: str) -> None:
    data = config_of("chaos", phantoms).data
    assert len(find_cases(data, phantoms / "chaos" / nesting)) == 3


def test_ppss_is_split_by_video_and_read_on_the_masks_grid(phantoms: Path) -> None:
    root = phantoms / "ppss"
    data = config_of("ppss", root).data
    cases = find_cases(data, root)
    assert {case.patient_id: case.part for case in cases} == {
        **{f"video{number:03}": "train" for number in (1, 2, 3)},
        "video101": "test",
    }
    assert [case.patient_id for case in cases] == sorted(case.patient_id for case in cases)
    arrays = read_case(cases[0], reader_of("ppss"), data)
    assert arrays.volume.voxels.shape == (3, 1, 160, 80)
    assert arrays.mask is not None
    assert set(np.unique(arrays.mask)) == set(range(8))


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


def first(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


def strip_pixels(root: Path) -> None:
    path = first(root, "*_SA2_ph0.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


def strip_position(root: Path) -> None:
    path = first(root, "*_SA2_ph0.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.ImagePositionPatient
    dataset.save_as(path)


def double_slice(root: Path) -> None:
    path = first(root, "InPhase/*.dcm")
    shutil.copy(path, path.with_name("IMG-0001-00099.dcm"))
    ground = path.parents[2] / "Ground"
    shutil.copy(ground / f"{path.stem}.png", ground / "IMG-0001-00099.png")


def spoil_colours(root: Path) -> None:
    path = first(root, "*_m.png")
    Image.fromarray(np.full((160, 80, 3), 77, np.uint8)).save(path)


def truncate(pattern: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = first(root, pattern)
        path.write_bytes(path.read_bytes()[:90])

    return spoil


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda root: first(root, pattern).unlink()


def shrink_mask(root: Path) -> None:
    path = first(root, "*.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("name", "spoil", "sentence"),
    [
        ("lvsc", strip_pixels, "DICOM without pixel data; export the series again"),
        ("lvsc", strip_position, "DICOM without ImagePositionPatient"),
        ("lvsc", truncate("*_SA2_ph0.dcm"), "not a readable DICOM file"),
        ("lvsc", remove("*_SA1_ph0.png"), "has no mask DET0000101_SA1_ph0.png, other slices of case"),
        ("lvsc", shrink_mask, "(9, 9), its image"),
        ("lvsc", truncate("*.png"), "not a readable image"),
        ("chaos", remove("T1DUAL/Ground/*.png"), "every slice needs its mask"),
        ("chaos", double_slice, "lies at the place of"),
        ("ppss", spoil_colours, "12800 of 12800 pixels have a colour of no class"),
        ("ppss", truncate("*.jpg"), "not a readable image"),
        ("nnunet", truncate("labelsTr/*.nii.gz"), "heart_000.nii.gz"),
    ],
)
def test_a_malformed_case_is_named_and_the_others_are_read(
    copy_of: Callable[[str], Path], name: str, spoil: Callable[[Path], None], sentence: str
) -> None:
    root = copy_of(name)
    spoil(root)
    report = check(root, config_of(name, root).data)
    assert sentence in "\n".join(report.problems)
    assert report.counts["usable cases"] >= report.counts["cases"] - 5


@pytest.mark.parametrize("name", NATIVE)
def test_folders_may_be_links(copy_of: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    root = copy_of(name)
    data = config_of(name, root).data
    before = find_cases(data, root)
    folder = before[0].images[0].parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "again").symlink_to(folder.parent)  # what is reached in two ways is known by its own path
    after = find_cases(data, root)
    assert [(case.case_id, case.patient_id, len(case.masks)) for case in after] == [
        (case.case_id, case.patient_id, len(case.masks)) for case in before
    ]


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


def test_a_file_that_is_there_twice_is_refused(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("lvsc")
    (root / "copy").mkdir()
    shutil.copy(first(root, "*_SA1_ph0.dcm"), root / "copy")
    with pytest.raises(DataError, match="is there twice, the other is"):
        find_cases(config_of("lvsc", root).data, root)
    root = copy_of("folders")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "images" / "heart_000.png")
    with pytest.raises(DataError, match=r"heart_000\.png: has the name of .*; each case needs a name of its own"):
        reader_of("folders").settings(root)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"background": 0, "ignore": 1, "a": 2}, r"labels \[0, 2\] must be 0 to 1 without a gap"),
        ({"background": 0, "a": 1, "ignore": 5}, r'"ignore" is 5, it must be the last label, 2; renumber it'),
        ({"background": 0, "a": [1, 2], "b": 2}, r"label 'a' is a region \(\[1, 2\]\); maag learns one class"),
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


def test_a_label_without_an_image_is_named(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    shutil.copy(first(root, "masks/*"), root / "masks" / "stranger.nii.gz")
    with pytest.raises(DataError, match="there is no image stranger in images/; name it as its image"):
        find_cases(config_of("folders", root).data, root)


def test_frames_of_a_cine_are_unlabelled_cases_if_semi(phantom_dir: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    root = Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))
    image = nib.load(first(root, "patient001_frame01.nii.gz"))
    cine = np.stack([np.asarray(image.dataobj) + step for step in range(3)], axis=-1)
    nib.save(nib.Nifti1Image(cine, image.affine), root / "training" / "patient001" / "patient001_4d.nii.gz")
    data = config_of("acdc", root).data
    assert len(find_cases(data, root)) == 12
    semi = replace(data, supervision="semi")
    cases = {case.case_id: case for case in find_cases(semi, root)}
    assert set(cases) >= {"patient001_frame02", "patient001_frame03"}
    assert len(cases) == 14
    first_frame, third = (reader_of("acdc").load_volume(cases[f"patient001_frame{n:02}"]) for n in (1, 3))
    np.testing.assert_allclose(third.voxels, first_frame.voxels + 2)
    assert len(find_cases(replace(semi, cine=False), root)) == 12


def test_the_readmes_example_of_a_further_data_set_works(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    [example] = [block.split("```")[0] for block in readme.split("```python\n") if "class ProstateReader" in block]
    assert len(example.splitlines()) <= 25
    found: dict[str, Any] = {}
    exec(example, found)
    reader: Reader = found["ProstateReader"]()
    for name, array in (("t2", np.ones((5, 4, 3), np.float32)), ("prostate", np.ones((5, 4, 3), np.uint8))):
        (tmp_path / "case00").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "case00" / f"{name}.nii.gz")
    config = apply_preset("fast", {"data.dataset": "prostate", **reader.defaults}, reader.in_presets.get("fast", {}))
    [case] = reader.find_cases(tmp_path, config.data)
    arrays = read_case(case, reader, config.data)
    assert arrays.volume.shape == (3, 4, 5)
    assert arrays.mask is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "reader_of", lambda _: reader)
        assert catalog.way_out("prostate", tmp_path) == f"expected {reader.layout}"
        with pytest.raises(ConfigError, match="data set 'prostate' has no phantom"):
            write_phantom("prostate", tmp_path / "out", 4, seed=0)
    assert not (tmp_path / "out").exists()
