"""LVSC, CHAOS and PPSS as their publishers lay them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from native_phantoms import config_of
from PIL import Image

from maag.data.cache.case_arrays import read_case
from maag.data.catalog import find_cases, reader_of
from maag.data.check import check
from maag.data.files.dicom_file import read_geometry
from maag.data.files.dicom_series import load_series, order_of_slices, require_even
from maag.errors import DataError


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
    with pytest.raises(DataError, match="restore missing slices"):
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
    assert any("restore missing slices" in problem for problem in map(str, check(root, data).problems))


def test_chaos_counts_stray_greys(phantoms: Path) -> None:
    root = phantoms / "chaos"
    notes = check(root, config_of("chaos", root).data).notes
    assert any("mask pixels have a grey value of no organ, taken as background" in note for note in notes)


@pytest.mark.parametrize(("name", "label"), [("chaos", 0), ("chaos-ct", 1)])
def test_chaos_masks_of_16_bits_are_not_cut_to_8(copy_of: Callable[[str], Path], name: str, label: int) -> None:
    root = copy_of(name)
    data = config_of(name, root).data
    case = find_cases(data, root)[0]
    for value, path in zip((0, 256, 311), case.masks, strict=False):  # 0 and liver's 55 in the lower byte
        shape = np.asarray(Image.open(path)).shape
        Image.fromarray(np.full(shape, value, np.uint16)).save(path)
    by_name = dict(zip(order_of_slices(case.images), reader_of(name).load_mask(case, data).labels, strict=True))
    assert [set(np.unique(by_name[place]).tolist()) for place in range(3)] == [{0}, {label}, {label}]


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
