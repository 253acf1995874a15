"""LVSC, CHAOS and PPSS in their published layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from phantom_datasets import config_of
from PIL import Image

from maag.data.cache.case_arrays import read_case
from maag.data.catalog import find_cases, reader_of
from maag.data.check import check
from maag.data.files.dicom_file import read_geometry
from maag.data.files.dicom_series import load_series, order_of_slices, require_even
from maag.errors import DataError


@pytest.mark.parametrize("name", ["lvsc", "chaos", "chaos-ct"])
def test_dicom_slices_are_stacked_in_spatial_order(name: str, phantoms: Path) -> None:
    data = config_of(name, phantoms / name).data
    case = find_cases(data, phantoms / name)[0]
    volume = reader_of(name).load_volume(case)
    heights = {read_geometry(path).height_mm: path for path in case.images}
    lowest = pydicom.dcmread(heights[min(heights)])
    stored = lowest.pixel_array.astype(float) + float(lowest.get("RescaleIntercept", 0))
    np.testing.assert_allclose(volume.voxels[0, 0], stored)
    slice_distance_mm = (max(heights) - min(heights)) / (len(heights) - 1)
    assert volume.spacing_mm[0] == pytest.approx(slice_distance_mm)
    x, y, z = (float(value) for value in lowest.ImagePositionPatient)
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [-x, -y, z, 1], atol=1e-4)
    assert volume.affine[2, 2] > 0


def test_lvsc_skips_long_axis_images_and_separates_slices_of_another_size(phantoms: Path) -> None:
    cases = find_cases(config_of("lvsc", phantoms / "lvsc").data, phantoms / "lvsc")
    assert not [path for case in cases for path in case.images if "_LA" in path.name]
    assert {case.patient_id for case in cases} == {f"DET{100 * n + 1:07}" for n in range(1, 4)}
    odd = [case for case in cases if case.case_id.endswith("_size2")]
    assert {case.patient_id for case in odd} == {"DET0000301"}
    assert all(len(case.images) == len(case.masks) for case in cases)


@pytest.mark.parametrize("kept", [[0, 1, 2, 4], [0, 1, 3]])
def test_a_gap_in_a_series_does_not_change_its_slice_spacing(phantoms: Path, kept: list[int]) -> None:
    case = find_cases(config_of("lvsc", phantoms / "lvsc").data, phantoms / "lvsc")[0]
    ordered = [case.images[index] for index in order_of_slices(case.images)]
    whole, gappy = load_series(ordered), load_series([ordered[index] for index in kept])
    assert gappy.spacing_mm == pytest.approx(whole.spacing_mm)
    np.testing.assert_allclose(gappy.affine, whole.affine, atol=1e-4)
    with pytest.raises(DataError, match="restore missing slices"):
        require_even([ordered[index] for index in kept])


def test_lvsc_masks_in_a_separate_folder_are_found(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("lvsc")
    before = find_cases(config_of("lvsc", root).data, root)
    (root / "masks").mkdir()
    for path in list(root.rglob("*.png")):
        path.rename(root / "masks" / path.name)
    after = find_cases(config_of("lvsc", root).data, root)
    assert [len(case.masks) for case in after] == [len(case.masks) for case in before]


def test_chaos_pairs_masks_by_position_if_names_differ(phantoms: Path) -> None:
    root = phantoms / "chaos"
    data = config_of("chaos", root).data
    by_name = [reader_of("chaos").load_mask(case, data).labels for case in find_cases(data, root)]
    from dataclasses import replace

    out_phase = replace(data, modality="t1out")  # whose file names differ from those of the masks
    cases = find_cases(out_phase, root)
    assert cases[0].frame == "t1out"
    for case, expected in zip(cases, by_name, strict=True):
        np.testing.assert_array_equal(reader_of("chaos").load_mask(case, out_phase).labels, expected)
    t2 = find_cases(replace(data, modality="t2spir"), root)
    assert len(t2[0].images) != len(cases[0].images)


def test_chaos_reports_a_series_with_a_gap(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("chaos")
    data = config_of("chaos", root).data
    case = find_cases(data, root)[0]
    missing = case.images[order_of_slices(case.images)[2]]
    missing.unlink()
    (missing.parents[2] / "Ground" / f"{missing.stem}.png").unlink(missing_ok=True)
    assert any("restore missing slices" in problem for problem in map(str, check(root, data).problems))


def test_chaos_counts_mask_pixels_with_unknown_grey_values(phantoms: Path) -> None:
    root = phantoms / "chaos"
    notes = check(root, config_of("chaos", root).data).notes
    assert any("mask pixels have a grey value of no organ, taken as background" in note for note in notes)


@pytest.mark.parametrize(("name", "label"), [("chaos", 0), ("chaos-ct", 1)])
def test_16_bit_chaos_masks_are_not_truncated_to_8_bits(copy_of: Callable[[str], Path], name: str, label: int) -> None:
    root = copy_of(name)
    data = config_of(name, root).data
    case = find_cases(data, root)[0]
    for value, path in zip((0, 256, 311), case.masks, strict=False):  # 0 and liver's 55 in the lower byte
        shape = np.asarray(Image.open(path)).shape
        Image.fromarray(np.full(shape, value, np.uint16)).save(path)
    by_index = dict(zip(order_of_slices(case.images), reader_of(name).load_mask(case, data).labels, strict=True))
    assert [set(np.unique(by_index[index]).tolist()) for index in range(3)] == [{0}, {label}, {label}]


@pytest.mark.parametrize("name", ["lvsc", "chaos", "chaos-ct"])
def test_masks_saved_again_with_a_palette_are_read_alike(copy_of: Callable[[str], Path], name: str) -> None:
    root = copy_of(name)
    data = config_of(name, root).data
    case = find_cases(data, root)[0]
    before = reader_of(name).load_mask(case, data).labels
    for path in case.masks:
        with Image.open(path) as mask:
            small = mask.convert("L").quantize(16)
        small.save(path)
    assert before.any()
    np.testing.assert_array_equal(reader_of(name).load_mask(case, data).labels, before)


@pytest.mark.parametrize("nesting", ["Train_Sets", "Train_Sets/MR", "."])
def test_chaos_is_found_from_any_level_of_its_folders(phantoms: Path, nesting: str) -> None:
    data = config_of("chaos", phantoms).data
    assert len(find_cases(data, phantoms / "chaos" / nesting)) == 3


def test_ppss_is_split_by_video_and_read_on_the_grid_of_its_masks(phantoms: Path) -> None:
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
