"""What is read, what is refused and with which sentence, and that labels keep their image's grid exactly."""

from __future__ import annotations

import gzip
import re
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maag.data.files.nifti_writing import ProbabilityWriter, description_of, fit_description, save_labels, save_volume
from maag.data.files.orientation import differences, odd_axes, odd_slices
from maag.data.files.volume import load_channels, load_geometry, load_labels, load_orientation, load_volume
from maag.errors import DataError, StorageError

OBLIQUE = np.array([[1.2, 0.3, 0.1, -20.0], [-0.25, 1.3, 0.2, 33.0], [0.05, -0.1, 8.0, 7.0], [0, 0, 0, 1.0]])
SHAPE = (7, 9, 3)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), OBLIQUE), path)
    return path


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    return path


def test_axes_are_slices_rows_columns(image: Path) -> None:
    volume = load_volume(image)
    assert volume.voxels.shape == (1, 3, 9, 7)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels[0], np.asarray(nib.load(image).dataobj).T)
    np.testing.assert_allclose(volume.spacing_mm, np.linalg.norm(OBLIQUE[:3, :3], axis=0)[::-1], rtol=1e-5)


@pytest.mark.parametrize("forms", [(1, 0), (0, 2), (1, 4), (0, 0)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_keep_the_grid_of_their_image(tmp_path: Path, forms: tuple[int, int], suffix: str) -> None:
    source = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    source.header.set_zooms((1.2, 1.3, 8.0))
    if forms[0]:
        source.header.set_qform(np.diag([1.2, 1.3, 8.0, 1]) + np.eye(4, k=3) * 5, forms[0])
    if forms[1]:
        source.header.set_sform(OBLIQUE, forms[1])
    source.header.set_xyzt_units("mm", "sec")
    like = tmp_path / f"like{suffix}"
    nib.save(source, like)
    labels = np.random.default_rng(0).integers(0, 4, SHAPE[::-1]).astype(np.uint8)
    out = tmp_path / "deep" / f"labels{suffix}"
    save_labels(out, labels, like, ("background", "RV", "MYO", "LV"))
    before, after = nib.load(like).header, nib.load(out).header
    for field in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(before[field], after[field])
    np.testing.assert_array_equal(nib.load(like).affine, nib.load(out).affine)
    assert after.get_data_dtype() == np.uint8
    assert b"2 MYO" in bytes(after["descrip"])
    assert np.array_equal(load_labels(out, range(4))[0], labels)


def test_labels_of_a_rescaled_image_are_whole_numbers_and_shown_in_their_own_range(tmp_path: Path) -> None:
    source = nib.Nifti1Image(np.arange(189, dtype=np.int16).reshape(SHAPE), OBLIQUE)
    source.header.set_slope_inter(0.25, -1000)
    source.header["cal_min"], source.header["cal_max"] = -1000, 3000
    nib.save(source, tmp_path / "like.nii.gz")
    save_labels(tmp_path / "labels.nii.gz", np.full(SHAPE[::-1], 3, np.uint8), tmp_path / "like.nii.gz", ("a", "b"))
    content = gzip.decompress((tmp_path / "labels.nii.gz").read_bytes())
    assert struct.unpack("<2f", content[112:120]) == (1, 0)  # slope and intercept
    assert struct.unpack("<2f", content[124:132]) == (0, 0)  # the range of what is shown
    assert set(content[352:]) == {3}


def test_a_file_with_a_qform_alone_tells_where_it_lies(tmp_path: Path) -> None:
    affine = np.diag([-1.5, -2.0, 8.0, 1.0]) + np.eye(4, k=3) * 5
    save_volume(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.uint8), affine, sform=False)
    assert int(nib.load(tmp_path / "a.nii.gz").header["sform_code"]) == 0
    assert load_orientation(tmp_path / "a.nii.gz") == ("LPS", (8.0, 2.0, 1.5))
    np.testing.assert_allclose(load_volume(tmp_path / "a.nii.gz").affine, affine)


def test_a_slice_that_lies_aslant_is_as_thick_as_its_affine_says(tmp_path: Path) -> None:
    turned = Rotation.from_euler("xyz", [0.5, 0.3, 0.2]).as_matrix() @ np.diag([1.2, 1.3, 8.0])
    affine = np.eye(4)
    affine[:3, :3] = turned
    nib.save(nib.Nifti1Image(np.zeros(SHAPE[:2], np.int16), affine), tmp_path / "slice.nii.gz")
    assert load_volume(tmp_path / "slice.nii.gz").spacing_mm == pytest.approx((8.0, 1.3, 1.2))


def test_one_frame_of_a_cine_is_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "frame.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 1), np.int16), np.eye(4)), path)
    assert load_volume(path).shape == SHAPE[::-1]
    save_labels(tmp_path / "out.nii.gz", np.zeros(SHAPE[::-1], np.uint8), path, ("background",))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name in ("a.nii.gz", "b.nii.gz"):
        save_volume(tmp_path / name, array, np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("name", ["A.NII.GZ", "a.nii.GZ", "A.NII"])
def test_capital_names_mean_the_same(tmp_path: Path, name: str) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save_volume(tmp_path / name, array, np.eye(4))
    np.testing.assert_array_equal(load_volume(tmp_path / name).voxels[0], array)


def test_probabilities_of_a_cine_are_the_file_that_nibabel_would_write(tmp_path: Path) -> None:
    # Of a size at which a class is more than the part of zeros that checksums are joined with.
    probabilities = np.random.default_rng(0).random((2, 3, 4, 250, 301)).astype(np.float32)
    for name in ("p.nii.gz", "q.nii.gz"):
        with ProbabilityWriter(tmp_path / "new" / name, 4) as writer:
            for slices in (frame[start : start + 2] for frame in probabilities for start in (0, 2)):
                writer.add(slices)
            writer.finish(2, OBLIQUE)
    image = nib.Nifti1Image(probabilities.transpose(4, 3, 1, 0, 2), OBLIQUE)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    packed = (tmp_path / "new" / "p.nii.gz").read_bytes()
    assert gzip.decompress(packed) == image.to_bytes()
    assert packed == (tmp_path / "new" / "q.nii.gz").read_bytes()
    assert len(packed) < probabilities.nbytes
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"p.nii.gz", "q.nii.gz"}


def test_probabilities_do_not_stay_in_memory_nor_on_disk_unless_all_came(tmp_path: Path) -> None:
    slices = np.random.default_rng(0).random((2, 2, 256, 256)).astype(np.float32)
    tracemalloc.start()
    with ProbabilityWriter(tmp_path / "p.nii.gz", 2) as writer:
        for _ in range(20):
            writer.add(slices)
        taken = tracemalloc.get_traced_memory()[1]
        assert not list(tmp_path.iterdir())
    tracemalloc.stop()
    assert taken < 4 * slices.nbytes
    assert not list(tmp_path.iterdir())


def test_a_place_where_no_probabilities_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*p\.nii\.gz: a file of this name is in the way"):
        ProbabilityWriter(tmp_path / "file" / "p.nii.gz", 2)


def test_a_header_with_two_spacings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.nii.gz"
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), None)
    image.header.set_zooms((1, 1, 1))
    image.header.set_sform(np.diag([1.5625, 1.5625, 10, 1]), 1)
    nib.save(image, path)
    sentence = r"two\.nii\.gz: .* sform has voxels of 1\.5625 x 1\.5625 x 10 mm and its pixdim of 1 x 1 x 1 mm"
    with pytest.raises(DataError, match=sentence):
        load_volume(path)
    with pytest.raises(DataError, match=sentence):
        load_geometry(path)
    image.header["sform_code"] = 0
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
    assert load_volume(path).spacing_mm == (1, 1, 1)


def test_axes_that_are_all_but_parallel_tell_no_places_apart(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), None)
    image.header.set_sform([[1, 1, 0, 0], [0, 1e-7, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1]], 1)
    nib.save(image, tmp_path / "flat.nii.gz")
    with pytest.raises(DataError, match=r"flat\.nii\.gz: the header's affine .* is singular"):
        load_volume(tmp_path / "flat.nii.gz")


def bad_header(fields: bytes, offset: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:offset] + fields + content[offset + len(fields) :]


ABSURD = bad_header(struct.pack("<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1), 40)
ZERO_SPACING = bad_header(struct.pack("<4f", 1, 0, 1, 1), 76)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "export it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a readable NIfTI"),
        (lambda path: rewrite(path, lambda content: content[:-100]), "truncated or damaged"),
        (lambda path: path.write_bytes(b""), "not a readable NIfTI"),
        (lambda path: path.write_text("a letter"), "not a readable NIfTI"),
        (lambda path: rewrite(path, ABSURD), "claims 32000 x 32000 x 32000 voxels"),
        (lambda path: rewrite(path, ZERO_SPACING), "voxel size 0 x 1 x 1 mm"),
    ],
)
def test_damage_is_named(image: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(image)
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_volume(image)
    assert time.monotonic() - started < 2
    assert str(image) in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_plain_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    nib.save(nib.Nifti1Image(np.zeros((30, 30, 30), np.int16), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"image\.nii: the header claims 30 x 30 x 30 voxels, more than a file of 5000"):
        load_volume(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, value: float) -> None:
    path = tmp_path / "image.nii.gz"
    array = np.zeros(SHAPE, np.float32)
    array[0, :2, 0] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    with pytest.raises(DataError, match=r"2 of 189 voxels are NaN or infinite; replace them"):
        load_volume(path)


def test_a_cine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cine.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 5), np.int16), np.eye(4)), path)
    with pytest.raises(DataError, match=r"4-D of shape \(7, 9, 3, 5\); a 3-D volume is needed"):
        load_volume(path)


@pytest.mark.parametrize("value", [5, -1, 0.5, 0.998, np.inf, np.nan])
def test_a_label_outside_the_classes_is_named(tmp_path: Path, value: float) -> None:
    path = tmp_path / "mask.nii.gz"
    array = np.zeros(SHAPE, np.float32)
    array[:3, 0, 0] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    allowed = "allowed are 0, 1, 4; correct the labels (`maag data renumber` exchanges numbers), or data.classes"
    with pytest.raises(DataError, match=re.escape(f"mask.nii.gz: 3 voxels have label {value:g}, {allowed}")):
        load_labels(path, {0, 1, 4})


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int64, np.float32, np.float64])
def test_labels_are_the_same_from_whatever_type_they_are_stored_in(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 5, SHAPE)
    nib.save(nib.Nifti1Image(array.astype(dtype), np.eye(4), dtype=dtype), tmp_path / "mask.nii.gz")
    labels, _ = load_labels(tmp_path / "mask.nii.gz", range(5))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, array.T)
    with pytest.raises(DataError, match=rf"{(array == 4).sum()} voxels have label 4, allowed are 0, 1, 2, 3;"):
        load_labels(tmp_path / "mask.nii.gz", range(4))


def test_labels_wait_for_the_disk_and_not_for_the_tightest_packing(tmp_path: Path) -> None:
    image, path = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)), image)
    save_labels(path, np.zeros(SHAPE[::-1], np.uint8), image, ["background"])
    tightest = 2  # as RFC 1952 calls level 9 in the ninth byte, which took 26 s for 512 x 512 x 400 ragged labels
    assert path.read_bytes()[8] != tightest


def test_an_image_of_one_channel_is_not_held_twice(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (64, 64, 64)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "image.nii.gz")
    load_channels([tmp_path / "image.nii.gz"])
    tracemalloc.start()
    load_channels([tmp_path / "image.nii.gz"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.8 * 4 * array.size


def test_many_allowed_labels_are_told_as_a_range(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 200, np.uint8), np.eye(4)), path)
    with pytest.raises(DataError, match=r"189 voxels have label 200, allowed are 0 to 104, 255; correct the labels"):
        load_labels(path, {*range(105), 255})


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*gone\.nii\.gz"):
        load_volume(tmp_path / "gone.nii.gz")


def test_labels_of_another_shape_are_not_written(image: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="they must agree"):
        save_labels(tmp_path / "out.nii.gz", np.zeros((3, 3, 3), np.uint8), image, ("background",))
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("micron", 1e-3), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_in_mm_whatever_the_header_counts_in(tmp_path: Path, unit: str, factor: float) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 2), np.int16), np.diag([-1.5, 1.5, 9.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = load_volume(tmp_path / "scan.nii.gz")
    assert volume.spacing_mm == pytest.approx((9.0 * factor, 1.5 * factor, 1.5 * factor))
    np.testing.assert_allclose(volume.affine, np.diag([-1.5 * factor, 1.5 * factor, 9.0 * factor, 1.0]))
    save_labels(tmp_path / "out.nii.gz", np.zeros((2, 5, 4), np.uint8), tmp_path / "scan.nii.gz", ("a", "b"))
    labels = nib.load(tmp_path / "out.nii.gz")
    assert labels.header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(labels.affine, image.affine)


def test_channels_that_lie_mirrored_are_refused(image: Path, tmp_path: Path) -> None:
    silent, mirrored = tmp_path / "silent.nii.gz", tmp_path / "mirrored.nii.gz"
    source = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), np.diag([-1, 1, 1, 1]) @ source.affine), mirrored)
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), None, source.header), silent)
    header = nib.load(image).header
    header["qform_code"] = header["sform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), None, header), silent)
    assert load_channels([image, silent, image]).voxels.shape == (3, 3, 9, 7)
    with pytest.raises(DataError, match=r"mirrored\.nii\.gz: a channel with axes LAS in its header beside .* with RAS"):
        load_channels([image, silent, mirrored])


@pytest.mark.parametrize(("shape", "sides"), [((7, 8, 3), (1, 1, 8)), (SHAPE, (1, 1.01, 8)), (SHAPE, (1, 1, 4))])
def test_channels_of_another_grid_are_refused(tmp_path: Path, shape: tuple[int, ...], sides: Sequence[float]) -> None:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1, 1, 8, 1])), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.diag([*sides, 1])), tmp_path / "b.nii.gz")
    with pytest.raises(DataError, match=r"b\.nii\.gz: a channel of \(7, \d, 3\) voxels of .* bring them to one grid"):
        load_channels([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"])


def test_a_description_holds_79_bytes() -> None:
    for length, fits in ((79, True), (80, False)):
        name = "x" * (length - len("0 "))
        assert fit_description([name]) == fits
        assert description_of([name]) == f"0 {name}"[:79].encode()


def test_images_that_lie_otherwise_than_most_are_told() -> None:
    assert odd_axes({}) == odd_axes({"a": None, "b": "LPS"}) == []
    (note,) = odd_axes({"a": "LPS", "b": "RAS", "c": "LPS", "d": None})
    assert note.startswith("1 image has axes RAS in the header, 2 have LPS; the first is b: voxels are taken")
    thick, across, even = (8.0, 1.0, 1.0), (1.0, 1.0, 8.0), (1.0, 1.0, 1.0)
    assert (
        odd_slices({}) == odd_slices({"a": thick, "b": even}) == odd_slices({"a": even, "b": even, "c": across}) == []
    )
    (note,) = odd_slices({"a": thick, "b": across, "c": thick})
    assert note.startswith("1 image has the thickest voxels along x, 2 along z; the first is b: slices are taken")
    (note,) = odd_slices({"a": thick, "b": (1.0, 8.0, 1.0), "c": thick})
    assert note.startswith("1 image has the thickest voxels along y, 2 along z; the first is b: slices are taken")
    assert odd_slices({"a": thick, "b": thick, "c": (1.0, 1.0, 1.05)}) == []  # as good as even


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("voxels", "told"), [(0.6, True), (-0.6, True), (0.4, False), (-0.4, False)])
def test_an_origin_more_than_half_a_voxel_aside_is_told(
    image: Path, tmp_path: Path, axis: int, voxels: float, told: bool
) -> None:
    moved = OBLIQUE.copy()
    moved[:3, 3] += voxels * OBLIQUE[:3, axis]
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), moved), tmp_path / "labels.nii.gz")
    assert bool(differences(tmp_path / "labels.nii.gz", image, origins=True)) == told
