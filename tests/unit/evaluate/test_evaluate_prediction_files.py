"""Predictions from other programs, matched to cases by name."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from square_masks import DATA, SUBJECT, Labels, MakeCase, square, write_nifti

from maag.data.cases import Case
from maag.data.files.header_agreement import header_differences
from maag.data.files.volume import Volume, load_labels
from maag.errors import DataError, MissingDataError, StorageError
from maag.evaluate.measure import evaluate
from maag.evaluate.prediction_files import file_predictor, prediction_files


@pytest.mark.parametrize(
    "name", ["patient001_frame01.nii.gz", "deep/patient001/patient001_frame01_pred.nii.gz", "patient001_frame01.nii"]
)
def test_predictions_in_a_folder_are_matched_to_cases(make_case: MakeCase, tmp_path: Path, name: str) -> None:
    cases = [make_case(1, 1, square(1))]
    write_nifti(tmp_path / "predictions" / name, square(1))
    write_nifti(tmp_path / "predictions" / "._patient001_frame01.nii.gz", square(2))
    report = evaluate(cases, file_predictor(prediction_files(tmp_path / "predictions", cases), DATA), DATA, SUBJECT)
    assert report.mean("dice") == 1.0


def test_missing_prediction_is_reported(make_case: MakeCase, tmp_path: Path) -> None:
    cases = [make_case(1, 1, square(1)), make_case(1, 2, square(1))]
    write_nifti(tmp_path / "predictions" / "patient001_frame01.nii.gz", square(1))
    with pytest.raises(DataError, match=r"1 of 2 cases: patient001_frame02; .*patient001_frame02\.nii\.gz"):
        prediction_files(tmp_path / "predictions", cases)


def test_two_predictions_of_a_case_are_refused(make_case: MakeCase, tmp_path: Path) -> None:
    cases = [make_case(1, 1, square(1))]
    for name in ("patient001_frame01.nii.gz", "patient001_frame01_pred.nii.gz"):
        write_nifti(tmp_path / "predictions" / name, square(1))
    with pytest.raises(DataError, match="two predictions"):
        prediction_files(tmp_path / "predictions", cases)


def test_images_of_the_same_name_are_distinguished_by_folder(tmp_path: Path) -> None:
    cases = [
        Case(case_id=f"video{video}_0001", patient_id=f"video{video}", frame="0001", images=(image,))
        for video in (101, 102, 103)
        for image in [tmp_path / "data" / str(video) / "0001.jpg"]
    ]
    lone = Case(case_id="video101_0002", patient_id="video101", frame="0002", images=(Path("data/101/0002.jpg"),))
    labels = tmp_path / "labels"
    by_folder = [labels / "101" / "0001.png", labels / "deep" / "102" / "0001.png"]
    for path in (*by_folder, labels / "video103_0001.png", labels / "0002.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = prediction_files(labels, [*cases, lone])
    assert list(found.values()) == [*by_folder, labels / "video103_0001.png", labels / "0002.png"]
    # An ambiguous name stays ambiguous even if the other cases of that name are not evaluated.
    by_folder[0].unlink()
    with pytest.raises(DataError, match="no prediction for 1 of 1 cases: video101_0001"):
        prediction_files(labels, cases[:1], cases)
    (labels / "0001.png").touch()
    with pytest.raises(DataError, match="no prediction for 1 of 3 cases: video101_0001"):
        prediction_files(labels, cases)


def test_predictions_behind_symlinks_are_found(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1))
    write_nifti(tmp_path / "elsewhere" / "patient001_frame01.nii.gz", square(1))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "fold0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    found = prediction_files(tmp_path / "labels", [case])
    assert found == {case.case_id: tmp_path / "labels" / "fold0" / "patient001_frame01.nii.gz"}


def test_broken_link_to_a_prediction_is_reported(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1))
    link = tmp_path / "labels" / "patient001_frame01.nii.gz"
    link.parent.mkdir()
    link.symlink_to("../.git/annex/objects/gone")
    files = prediction_files(link.parent, [case])
    with pytest.raises(StorageError, match=r"a broken link to \S*gone; fetch its target, or"):
        evaluate([case], file_predictor(files, DATA), DATA, SUBJECT)


def test_predictions_may_be_pictures(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1)[:1])
    (tmp_path / "labels").mkdir()
    picture = tmp_path / "labels" / "patient001_frame01.png"
    Image.fromarray(square(1)[0]).save(picture)
    assert prediction_files(picture.parent, [case]) == {case.case_id: picture}
    labels, expected = file_predictor({case.case_id: picture}, DATA)(
        case, Volume(np.ones((1, 1, 12, 12), np.float32), (1, 1, 1), np.eye(4))
    )
    assert expected == {}
    np.testing.assert_array_equal(labels, square(1)[:1])


def test_header_differences_are_reported(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1))
    turned = tmp_path / "turned.nii.gz"
    image = nibabel.load(case.images[0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-1.0, 2.0, 4.0, 1.0])), turned)
    orientation, spacing = header_differences(turned, case.images[0])
    assert f"{turned}: its header has orientation LAS, its image's RAS" in orientation
    assert "voxels of 1 x 2 x 4 mm, its image's of 1 x 2 x 5 mm" in spacing
    assert header_differences(case.masks[0], case.images[0]) == ()
    moved = tmp_path / "moved.nii.gz"
    elsewhere = image.affine.copy()
    elsewhere[:3, 3] = 40
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), elsewhere), moved)
    assert header_differences(moved, case.images[0]) == ()
    [origin] = header_differences(moved, case.images[0], origins=True)
    assert origin.startswith(f"{moved}: its header has origin (40, 40, 40) mm, its image's (0, 0, 0) mm; voxels")
    elsewhere[:3, 3] = [0.4, -0.9, 2.4]  # voxels of 1 x 2 x 5 mm
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), elsewhere), moved)
    assert header_differences(moved, case.images[0], origins=True) == ()
    silent = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    silent.header.set_zooms((1, 2, 5))
    nibabel.save(silent, moved)
    assert header_differences(moved, case.images[0], origins=True) == ()


def test_missing_predictions_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such folder"):
        prediction_files(tmp_path / "nowhere", [])


@pytest.mark.parametrize("prediction", [square(1)[:, :8], square(1).transpose(1, 0, 2)])  # smaller, or axes swapped
def test_a_prediction_of_another_shape_is_refused(make_case: MakeCase, tmp_path: Path, prediction: Labels) -> None:
    cases = [make_case(1, 1, square(1))]
    path = write_nifti(tmp_path / "predictions" / "patient001_frame01.nii.gz", prediction)
    shape = load_labels(path, range(3))[0].shape
    assert shape == prediction.shape
    with pytest.raises(DataError, match=r"patient001_frame01: its prediction has shape .* \(2, 12, 12\)") as refused:
        evaluate(cases, file_predictor(prediction_files(path.parent, cases), DATA), DATA, SUBJECT)
    assert str(shape) in str(refused.value)
