"""Scribbles simulated from masks: inside every structure and reproducible by seed."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import label

from maag.data.phantoms.heart import draw_heart, draw_mask
from maag.data.scribbles.styles import STYLES, coverage, draw_scribble, simulate
from maag.labels import IGNORE

Labels = NDArray[np.uint8]
RELEASE_COVERAGE = {
    "skeleton-dilated": [2.8, 17.3, 51.8, 3.4],
    "random-walk": [1.6, 10.5, 9.0, 10.5],
}
"""Annotated % of background, RV, MYO and LV, by the published generators on real masks."""
TOLERANCE = 3.0  # percentage points: the slices and patients differ


def heart_mask(seed: int) -> Labels:
    heart = draw_heart(np.random.default_rng(seed))
    return draw_mask(heart, 0.1)


@st.composite
def small_masks(draw: st.DrawFn) -> Labels:
    height, width = draw(st.integers(5, 40)), draw(st.integers(5, 40))
    mask = np.zeros((height, width), dtype=np.uint8)
    for value in (1, 2, 3):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[top : top + draw(st.integers(0, 15)), left : left + draw(st.integers(0, 15))] = value
    return mask


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=25, deadline=None)
@given(mask=small_masks(), ratio=st.floats(0.05, 1), seed=st.integers(0, 9))
def test_every_stroke_stays_inside_its_structure(style: str, mask: Labels, ratio: float, seed: int) -> None:
    scribble = draw_scribble(mask, 4, style, np.random.default_rng(seed), ratio=ratio)
    assert scribble.shape == mask.shape
    drawn = scribble != IGNORE
    assert (scribble == mask)[drawn].all()


@pytest.mark.parametrize("style", STYLES)
def test_simulated_scribbles_depend_only_on_slice_seed_and_case(style: str) -> None:
    mask = heart_mask(0)
    whole = simulate(mask, 4, style, seed=1, case_id="a")
    np.testing.assert_array_equal(whole, simulate(mask, 4, style, seed=1, case_id="a"))
    np.testing.assert_array_equal(whole[:2], simulate(mask[:2], 4, style, seed=1, case_id="a"))
    if style not in ("skeleton", "skeleton-dilated"):  # these are deterministic
        assert (whole != simulate(mask, 4, style, seed=2, case_id="a")).any()
        assert (whole != simulate(mask, 4, style, seed=1, case_id="b")).any()


@pytest.mark.parametrize("style", STYLES)
def test_every_structure_of_a_heart_gets_a_stroke(style: str) -> None:
    mask = heart_mask(3)
    for plane, scribble in zip(mask, simulate(mask, 4, style, seed=0, case_id="x"), strict=True):
        assert set(np.unique(scribble)) - {IGNORE} == set(np.unique(plane))


@pytest.mark.parametrize("style", STYLES)
def test_a_cavity_of_no_class_gets_a_background_stroke(style: str) -> None:
    rows, columns = np.mgrid[:96, :96]
    radius = np.hypot(rows - 50, columns - 44)
    ring = ((radius > 8) & (radius <= 14)).astype(np.uint8)
    cavity = radius <= 8
    scribbles = [draw_scribble(ring, 2, style, np.random.default_rng(seed)) for seed in range(5)]
    for scribble in scribbles:
        assert (scribble[cavity] == 0).any()
        assert (scribble[~cavity] == 0).any()
    assert any((scribble != scribbles[0]).any() for scribble in scribbles) == (not style.startswith("skeleton"))


@pytest.mark.parametrize("style", ["skeleton", "curve"])
def test_a_ratio_shortens_a_stroke_and_keeps_it_in_one_piece(style: str) -> None:
    plane = heart_mask(1)[0]
    whole = draw_scribble(plane, 4, style, np.random.default_rng(0)) == 2
    part = draw_scribble(plane, 4, style, np.random.default_rng(0), ratio=0.5) == 2
    assert not (part & ~whole).any()
    assert part.sum() == pytest.approx(0.5 * whole.sum(), abs=2)
    eight_neighbours = np.ones((3, 3))
    assert label(part, eight_neighbours)[1] == label(whole, eight_neighbours)[1]


def test_a_random_walk_reaches_the_far_side_of_a_wide_image() -> None:
    mask = np.zeros((20, 200), dtype=np.uint8)
    mask[5:15, 120:195] = 1
    reached = [draw_scribble(mask, 2, "random-walk", np.random.default_rng(seed)) == 1 for seed in range(8)]
    assert np.any(reached, axis=0)[:, 120:].any()
    assert max(np.nonzero(one)[1].max() for one in reached) > 160


def test_coverage_is_a_percentage_per_class() -> None:
    mask = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    scribble = np.array([[0, IGNORE, IGNORE, IGNORE]], dtype=np.uint8)
    np.testing.assert_array_equal(coverage(scribble, mask, 3), [50, 0, np.nan])


@pytest.mark.skipif("MAAG_ACDC" not in os.environ, reason="set MAAG_ACDC to a folder of real ACDC data")
@pytest.mark.parametrize("style", RELEASE_COVERAGE)
def test_simulated_coverage_matches_the_published_generators_on_real_masks(style: str) -> None:
    files = sorted(Path(os.environ["MAAG_ACDC"]).rglob("*_gt.nii.gz"))[::14]
    covered = []
    for path in files:
        mask = np.asarray(nib.load(path).dataobj).T.astype(np.uint8)
        for plane in mask[np.linspace(1, len(mask) - 2, 3).astype(int)]:
            side = max(plane.shape)
            square = np.zeros((side, side), dtype=np.uint8)
            square[: plane.shape[0], : plane.shape[1]] = plane
            covered.append(coverage(draw_scribble(square, 4, style, np.random.default_rng(len(covered))), square, 4))
    assert len(covered) > 30
    np.testing.assert_allclose(np.nanmean(covered, axis=0), RELEASE_COVERAGE[style], atol=TOLERANCE)


def test_invalid_scribble_sources_are_refused(phantom_dir: Path, tmp_path: Path) -> None:
    from maag.config.data import DataConfig
    from maag.data.catalog import find_cases
    from maag.errors import ConfigError, MissingDataError

    for word in ("simulated:nothing", "simulated:curve:2", "simulated", "simulated:curve:x"):
        with pytest.raises(ConfigError, match="expected simulated:STYLE or simulated:STYLE:RATIO"):
            find_cases(DataConfig(), phantom_dir, [word])
    with pytest.raises(MissingDataError, match="no such folder; give a folder of scribble files"):
        find_cases(DataConfig(), phantom_dir, [str(tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="it has no scribble of any of the 12 cases; files must be named after"):
        find_cases(DataConfig(), phantom_dir, [str(tmp_path / "empty")])
    with pytest.raises(ConfigError, match="simulated:curve and simulated:curve both have a rater simulated:curve; "):
        find_cases(DataConfig(), phantom_dir, ["simulated:curve", "simulated:curve"])
    both = find_cases(DataConfig(), phantom_dir, ["own", "simulated:curve"])
    assert {len(case.scribbles) for case in both} == {2}


def test_two_sources_with_a_rater_of_one_name_are_refused_even_if_they_share_no_case(
    phantom_dir: Path, tmp_path: Path
) -> None:
    from maag.data.catalog import find_cases, preset
    from maag.errors import ConfigError

    data = preset("acdc", "fast").data
    first, second = find_cases(data, phantom_dir)[:2]
    folders = [tmp_path / "anna" / "drawn", tmp_path / "bob" / "drawn"]
    for folder, case in zip(folders, (first, second), strict=True):
        folder.mkdir(parents=True)
        (folder / f"{case.case_id}_scribble.nii.gz").touch()
    with pytest.raises(ConfigError) as caught:
        find_cases(data, phantom_dir, list(map(str, folders)))
    assert str(caught.value).startswith(f"--scribbles {folders[0]} and {folders[1]} both have a rater drawn; ")
