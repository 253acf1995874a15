"""Behaviour common to all data sets in their native formats, and the errors for malformed ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from phantom_datasets import NATIVE_CASES, config_of, first_match
from PIL import Image

from maag.config.presets import apply_preset
from maag.data import catalog
from maag.data.cache.case_arrays import read_case
from maag.data.cases import Reader
from maag.data.catalog import READERS, find_cases, preset, reader_of, write_phantom
from maag.data.check import check
from maag.errors import ConfigError, DataError, MissingDataError, StorageError


def test_every_reader_has_a_fast_preset() -> None:
    for name in READERS:
        assert preset(name, "fast").data.dataset == name
        assert max(preset(name, "fast").data.size_px) <= 96


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE_CASES)
def test_a_phantom_passes_the_check_and_depends_only_on_its_seed(name: str, phantoms: Path, tmp_path: Path) -> None:
    config = config_of(name, phantoms / name)
    report = check(phantoms / name, config.data)
    assert report.problems == ()
    assert all(item.cases_in_masks for item in report.classes)
    write_phantom(name, tmp_path / "again", NATIVE_CASES[name], seed=2)
    write_phantom(name, tmp_path / "other", NATIVE_CASES[name], seed=3)
    bytes_of = {
        root: {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (phantoms / name, tmp_path / "again", tmp_path / "other")
    }
    one, again, other = bytes_of.values()
    assert one == again
    assert one != other


def test_more_phantom_videos_than_have_numbers_of_their_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="101 videos: the phantom in PPSS's layout has 100 at most; ask for fewer"):
        write_phantom("ppss", tmp_path / "new", 101, seed=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", NATIVE_CASES)
def test_an_empty_folder_is_refused_with_the_expected_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=f"no case of {name} in it; expected .*`maag data phantom --dataset {name}"
    ):
        find_cases(config_of(name, tmp_path).data, tmp_path)


def test_the_expected_layout_is_reported_even_if_storage_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise StorageError(f"cannot read {path}")

    monkeypatch.setattr(catalog, "is_free", refuse)
    with pytest.raises(MissingDataError, match=r"no such folder; expected .* --out acdc-phantom`"):
        find_cases(config_of("acdc", tmp_path).data, tmp_path / "none")


def strip_pixels(root: Path) -> None:
    path = first_match(root, "*_SA2_ph0.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


def strip_position(root: Path) -> None:
    path = first_match(root, "*_SA2_ph0.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.ImagePositionPatient
    dataset.save_as(path)


def duplicate_slice(root: Path) -> None:
    path = first_match(root, "InPhase/*.dcm")
    shutil.copy(path, path.with_name("IMG-0001-00099.dcm"))
    ground = path.parents[2] / "Ground"
    shutil.copy(ground / f"{path.stem}.png", ground / "IMG-0001-00099.png")


def spoil_colours(root: Path) -> None:
    path = first_match(root, "*_m.png")
    Image.fromarray(np.full((160, 80, 3), 77, np.uint8)).save(path)


def truncate(pattern: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = first_match(root, pattern)
        path.write_bytes(path.read_bytes()[:90])

    return spoil


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda root: first_match(root, pattern).unlink()


def break_link(pattern: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = first_match(root, pattern)
        path.unlink()
        path.symlink_to("nowhere")

    return spoil


def shrink_mask(root: Path) -> None:
    path = first_match(root, "*.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("name", "spoil", "sentence"),
    [
        ("lvsc", strip_pixels, "DICOM without pixel data; export the series again"),
        ("lvsc", strip_position, "DICOM without ImagePositionPatient"),
        ("lvsc", truncate("*_SA2_ph0.dcm"), "not a readable DICOM file"),
        ("lvsc", remove("*_SA1_ph0.png"), "has no mask DET0000101_SA1_ph0.png, unlike other slices of case"),
        ("lvsc", shrink_mask, "(9, 9), its image"),
        ("lvsc", truncate("*.png"), "not a readable image"),
        ("chaos", remove("T1DUAL/Ground/*.png"), "every slice needs a mask"),
        ("chaos", duplicate_slice, "lies at the position of"),
        ("ppss", spoil_colours, "12800 of 12800 pixels have a colour of no class"),
        ("ppss", break_link("*_m.png"), "a broken link to nowhere"),
        ("ppss", truncate("*.jpg"), "not a readable image"),
        ("nnunet", truncate("labelsTr/*.nii.gz"), "heart_000.nii.gz"),
    ],
)
def test_a_malformed_case_is_reported_and_the_others_are_read(
    copy_of: Callable[[str], Path], name: str, spoil: Callable[[Path], None], sentence: str
) -> None:
    root = copy_of(name)
    spoil(root)
    report = check(root, config_of(name, root).data)
    assert sentence in "\n".join(report.problems)
    assert report.counts["usable cases"] >= report.counts["cases"] - 5


@pytest.mark.parametrize("name", NATIVE_CASES)
def test_symlinked_folders_are_searched(copy_of: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    root = copy_of(name)
    data = config_of(name, root).data
    before = find_cases(data, root)
    folder = before[0].images[0].parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "again").symlink_to(folder.parent)  # a folder that is reachable in two ways keeps its own path
    after = find_cases(data, root)
    assert [(case.case_id, case.patient_id, len(case.masks)) for case in after] == [
        (case.case_id, case.patient_id, len(case.masks)) for case in before
    ]


def test_a_duplicate_file_is_refused(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("lvsc")
    (root / "copy").mkdir()
    shutil.copy(first_match(root, "*_SA1_ph0.dcm"), root / "copy")
    with pytest.raises(DataError, match="is there twice, also as"):
        find_cases(config_of("lvsc", root).data, root)
    root = copy_of("folders")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "images" / "heart_000.png")
    with pytest.raises(
        DataError, match=r"heart_000\.png: has the same name as .*heart_000\.nii\.gz; each case needs a name of its own"
    ):
        reader_of("folders").settings(root)


def test_semi_supervision_adds_frames_of_a_cine_as_unlabelled_cases(phantom_dir: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    root = Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))
    image = nib.load(first_match(root, "patient001_frame01.nii.gz"))
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
    bad = root / "training" / "patient002" / "patient002_4d.nii.gz"
    bad.write_bytes(b"cut off")
    report = check(root, semi)
    assert (report.counts["cases"], report.counts["usable cases"]) == (15, 14)
    assert report.problems[0].startswith(f"{bad}: not a readable NIfTI file")


def test_the_readme_example_of_a_custom_reader_works(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    [example] = [block.split("```")[0] for block in readme.split("```python\n") if "class ProstateReader" in block]
    assert len(example.splitlines()) <= 25
    found: dict[str, Any] = {}
    exec(example, found)
    reader: Reader = found["ProstateReader"]()
    for name in (name for name in vars(type(reader)) if not name.startswith("_")):
        assert name in dir(Reader), f"{name} of the example is no member of Reader, so it has no effect"
    for name, array in (("t2", np.ones((5, 4, 3), np.float32)), ("prostate", np.ones((5, 4, 3), np.uint8))):
        (tmp_path / "case00").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "case00" / f"{name}.nii.gz")
    config = apply_preset(
        "fast", {"data.dataset": "prostate", **reader.defaults}, reader.preset_settings.get("fast", {})
    )
    [case] = reader.find_cases(tmp_path, config.data)
    arrays = read_case(case, reader, config.data)
    assert arrays.volume.shape == (3, 4, 5)
    assert arrays.mask is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "reader_of", lambda _: reader)
        assert catalog.missing_data_hint("prostate", tmp_path) == f"expected {reader.layout}"
        with pytest.raises(ConfigError, match="data set 'prostate' has no phantom"):
            write_phantom("prostate", tmp_path / "out", 4, seed=0)
    assert not (tmp_path / "out").exists()
