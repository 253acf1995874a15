from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label

from maag.cli import data as cli_data
from maag.cli.main import commands
from maag.data.files.pictures import load_indices, open_picture
from maag.data.phantoms.heart import draw_heart, draw_mask
from maag.data.scribbles.styles import STYLES, coverage, draw_scribble, simulate
from maag.labels import IGNORE

Labels = NDArray[np.uint8]
RELEASE_COVERAGE = {
    "skeleton-dilated": [2.8, 17.3, 51.8, 3.4],
    "random-walk": [1.6, 10.5, 9.0, 10.5],
}
"""Of background, RV, MYO, LV in % of the class, by the published generators on real masks."""
TOLERANCE = 3.0  # points: other slices of other patients


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
def test_every_stroke_lies_in_its_structure(style: str, mask: Labels, ratio: float, seed: int) -> None:
    scribble = draw_scribble(mask, 4, style, np.random.default_rng(seed), ratio=ratio)
    assert scribble.shape == mask.shape
    drawn = scribble != IGNORE
    assert (scribble == mask)[drawn].all()


@pytest.mark.parametrize("style", STYLES)
def test_a_case_is_scribbled_alike_whatever_else_is(style: str) -> None:
    mask = heart_mask(0)
    whole = simulate(mask, 4, style, seed=1, case_id="a")
    np.testing.assert_array_equal(whole, simulate(mask, 4, style, seed=1, case_id="a"))
    np.testing.assert_array_equal(whole[:2], simulate(mask[:2], 4, style, seed=1, case_id="a"))
    if style not in ("skeleton", "skeleton-dilated"):  # these leave nothing to chance
        assert (whole != simulate(mask, 4, style, seed=2, case_id="a")).any()
        assert (whole != simulate(mask, 4, style, seed=1, case_id="b")).any()


@pytest.mark.parametrize("style", STYLES)
def test_every_structure_of_a_heart_gets_a_stroke(style: str) -> None:
    mask = heart_mask(3)
    for plane, scribble in zip(mask, simulate(mask, 4, style, seed=0, case_id="x"), strict=True):
        assert set(np.unique(scribble)) - {IGNORE} == set(np.unique(plane))


@pytest.mark.parametrize("style", STYLES)
def test_a_cavity_of_no_class_gets_a_stroke_of_background(style: str) -> None:
    rows, columns = np.mgrid[:96, :96]
    away = np.hypot(rows - 50, columns - 44)
    ring = ((away > 8) & (away <= 14)).astype(np.uint8)
    cavity = away <= 8
    scribbles = [draw_scribble(ring, 2, style, np.random.default_rng(seed)) for seed in range(5)]
    for scribble in scribbles:
        assert (scribble[cavity] == 0).any()
        assert (scribble[~cavity] == 0).any()
    assert any((scribble != scribbles[0]).any() for scribble in scribbles) == (not style.startswith("skeleton"))


@pytest.mark.parametrize("style", ["skeleton", "curve"])
def test_a_ratio_keeps_that_part_in_one_piece(style: str) -> None:
    plane = heart_mask(1)[0]
    whole = draw_scribble(plane, 4, style, np.random.default_rng(0)) == 2
    part = draw_scribble(plane, 4, style, np.random.default_rng(0), ratio=0.5) == 2
    assert not (part & ~whole).any()
    assert part.sum() == pytest.approx(0.5 * whole.sum(), abs=2)
    eight_neighbours = np.ones((3, 3))
    assert label(part, eight_neighbours)[1] == label(whole, eight_neighbours)[1]


def test_a_walk_reaches_the_far_side_of_a_wide_image() -> None:
    mask = np.zeros((20, 200), dtype=np.uint8)
    mask[5:15, 120:195] = 1
    reached = [draw_scribble(mask, 2, "random-walk", np.random.default_rng(seed)) == 1 for seed in range(8)]
    assert np.any(reached, axis=0)[:, 120:].any()
    assert max(np.nonzero(one)[1].max() for one in reached) > 160


def test_coverage_counts_by_class() -> None:
    mask = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    scribble = np.array([[0, IGNORE, IGNORE, IGNORE]], dtype=np.uint8)
    np.testing.assert_array_equal(coverage(scribble, mask, 3), [50, 0, np.nan])


@pytest.mark.skipif("MAAG_ACDC" not in os.environ, reason="set MAAG_ACDC to a folder of real ACDC data")
@pytest.mark.parametrize("style", RELEASE_COVERAGE)
def test_the_coverage_of_the_release_on_real_masks(style: str) -> None:
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


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["data", "scribble", *map(str, words)])
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


@pytest.mark.slow
def test_the_command_scribbles_folders_and_names_bad_masks(phantom_dir: Path, tmp_path: Path) -> None:
    code, text = run(phantom_dir, "--out", tmp_path / "out", "--style", "random-walk", "--unlabelled", 9)
    assert code == 0, text
    masks = sorted(phantom_dir.rglob("*_gt.nii.gz"))
    assert len(list((tmp_path / "out").glob("*_scribble.nii.gz"))) == len(masks)
    assert open_picture(tmp_path / "out-sheet.png").size[0] > 300
    mask = nib.load(masks[0])
    scribble = nib.load(tmp_path / "out" / masks[0].name.replace("_gt", "_scribble"))
    np.testing.assert_array_equal(mask.affine, scribble.affine)
    drawn, truth = np.asarray(scribble.dataobj), np.asarray(mask.dataobj)
    assert (drawn == truth)[drawn != 9].all()

    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "bad_gt.nii.gz").write_text("no")
    Image.fromarray(np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)).save(tmp_path / "masks" / "good_gt.png")
    code, text = run(tmp_path / "masks", "--out", tmp_path / "second", "--style", "skeleton")
    assert "bad_gt.nii.gz: not a readable NIfTI" in text
    assert "1 of 2 masks could not be scribbled" in text
    assert set(np.unique(load_indices(tmp_path / "second" / "good_scribble.png"))) == {0, 1, 2}


def test_black_and_white_masks_and_dead_links_are_named_and_the_others_are_scribbled(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    plane = np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)
    Image.fromarray(plane * 255).save(tmp_path / "masks" / "white_gt.png")
    (tmp_path / "masks" / "dead_gt.png").symlink_to(tmp_path / "nowhere.png")
    scaled = nib.Nifti1Image(plane[:, :, None] * np.float32(0.99999994), np.eye(4))
    nib.save(scaled, tmp_path / "masks" / "scaled_gt.nii")
    code, text = run(tmp_path / "masks", "--out", tmp_path / "out", "--style", "skeleton")
    assert code != 0
    assert "2 of 3 masks could not be scribbled" in text
    white = "white_gt.png: 128 voxels have label 255, allowed are 0 to 254; save a black and white mask with 1 where it"
    assert white in text
    assert f"dead_gt.png: a link to {tmp_path / 'nowhere.png'}, where nothing is" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scaled_scribble.nii.gz"]
    assert set(np.unique(np.asarray(nib.load(tmp_path / "out" / "scaled_scribble.nii.gz").dataobj))) == {0, 1, 2}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file systems refuse such names")
def test_a_mask_whose_name_is_no_utf_8_is_scribbled(tmp_path: Path) -> None:
    mask = tmp_path / "masks" / os.fsdecode(b"f\xedgado $_$ _gt.png")
    mask.parent.mkdir()
    Image.fromarray(np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)).save(mask)
    code, text = run(mask.parent, "--out", tmp_path / "out", "--style", "random-walk")
    assert code == 0, text
    assert (tmp_path / "out" / os.fsdecode(b"f\xedgado $_$ _scribble.png")).is_file()


def test_scribbles_of_a_data_set_serve_as_its_source(tmp_path: Path) -> None:
    from maag.data.catalog import find_cases, preset, write_phantom

    write_phantom("chaos", tmp_path / "chaos", 4, seed=0)
    code, text = run(tmp_path / "chaos", "--dataset", "chaos", "--out", tmp_path / "mine", "--style", "skeleton")
    assert code == 0, text
    cases = find_cases(preset("chaos", "fast").data, tmp_path / "chaos", [str(tmp_path / "mine")])
    assert [[scribble.rater for scribble in case.scribbles] for case in cases] == [["mine"]] * 4


def test_what_was_drawn_by_hand_is_not_replaced_unasked(phantom_dir: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "out" / "patient001_frame01_scribble.nii.gz"
    drawn.parent.mkdir()
    drawn.write_text("by hand")
    words = (phantom_dir, "--out", tmp_path / "out", "--style", "curve", "--unlabelled", 4)
    code, text = run(*words)
    assert code != 0
    assert "patient001_frame01_scribble.nii.gz is there already" in text
    assert drawn.read_text() == "by hand"
    assert [path.name for path in drawn.parent.iterdir()] == [drawn.name]
    assert run(*words, "--overwrite")[0] == 0
    assert nib.load(drawn).shape


def test_scribbles_of_a_folder_of_masks_are_read_beside_them(tmp_path: Path) -> None:
    from maag.data.catalog import find_cases, preset, write_phantom

    root = tmp_path / "hearts"
    write_phantom("folders", root, 4, seed=0)
    code, text = run(root / "masks", "--out", root / "scribbles", "--style", "skeleton")
    assert code == 0, text
    cases = find_cases(preset("folders", "fast").data, root)
    assert all(case.scribbles for case in cases if case.masks)


def test_a_class_as_unlabelled_value_is_refused(phantom_dir: Path, tmp_path: Path) -> None:
    code, text = run(phantom_dir, "--out", tmp_path / "out", "--style", "curve", "--unlabelled", 3)
    assert code != 0
    assert "--unlabelled 3 is a label of the masks; it must be at least 4" in text


def test_the_command_offers_every_style() -> None:
    assert tuple(STYLES) == cli_data.STYLES  # which is written out there, for the styles themselves take long to import


def test_two_masks_of_one_name_are_refused(phantom_dir: Path, tmp_path: Path) -> None:
    code, text = run(phantom_dir, phantom_dir, "--out", tmp_path / "out", "--style", "curve")
    assert code != 0
    assert "would both be scribbled as patient001_frame01_scribble" in text


def test_simulated_sources_are_named_when_wrong(phantom_dir: Path, tmp_path: Path) -> None:
    from maag.config.data import DataConfig
    from maag.data.catalog import find_cases
    from maag.errors import ConfigError, MissingDataError

    for word in ("simulated:nothing", "simulated:curve:2", "simulated", "simulated:curve:x"):
        with pytest.raises(ConfigError, match="expected simulated:STYLE or simulated:STYLE:RATIO"):
            find_cases(DataConfig(), phantom_dir, [word])
    with pytest.raises(MissingDataError, match="no such folder; give a folder of scribble files"):
        find_cases(DataConfig(), phantom_dir, [str(tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="none of the 12 cases has a scribble in it; files must be named as"):
        find_cases(DataConfig(), phantom_dir, [str(tmp_path / "empty")])
    with pytest.raises(ConfigError, match="two scribbles of one rater"):
        find_cases(DataConfig(), phantom_dir, ["simulated:curve", "simulated:curve"])
    both = find_cases(DataConfig(), phantom_dir, ["own", "simulated:curve"])
    assert {len(case.scribbles) for case in both} == {2}
