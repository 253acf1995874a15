from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nothing_runner import Nothing
from numpy.typing import NDArray
from PIL import Image

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, NiftiReader
from maag.data.orientation import differences
from maag.data.volume import Volume, load_labels
from maag.errors import DataError, MissingDataError, StorageError
from maag.evaluate.measure import Predicted, evaluate, file_predictor, prediction_files, runner_predictor
from maag.evaluate.report import Report, Spread, Subject, table
from maag.inference import Refinement
from maag.labels import IGNORE

Labels = NDArray[np.uint8]
DATA = DataConfig(classes=("background", "a", "b"), size_px=(16, 16), spacing_mm=1.0)
SUBJECT = Subject(model="runs/one", dataset="acdc", split="val", split_digest="0123", checkpoint_kind="best")
MakeCase = Callable[..., Case]


def write_nifti(path: Path, array: NDArray[np.generic]) -> Path:
    """Write (Z, Y, X) voxels of 5 x 2 x 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.0, 2.0, 5.0, 1.0])), path)
    return path


def square(value: int, start: int = 2) -> Labels:
    labels = np.zeros((2, 12, 12), np.uint8)
    labels[:, start : start + 4, 2:6] = value
    return labels


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    def make(patient: int, frame: int, mask: Labels | None) -> Case:
        name = f"patient{patient:03}_frame{frame:02}"
        image = write_nifti(tmp_path / "data" / f"{name}.nii.gz", np.ones((2, 12, 12), np.float32))
        written = () if mask is None else (write_nifti(tmp_path / "data" / f"{name}_gt.nii.gz", mask),)
        return Case(case_id=name, patient_id=name[:10], frame=name[11:], images=(image,), masks=written)

    return make


def predict_square(case: Case, volume: Volume) -> Predicted:
    return Predicted(square(1))


@pytest.fixture
def report(make_case: MakeCase) -> Report:
    cases = [
        make_case(1, 1, square(1)),  # a perfect
        make_case(1, 2, square(1, start=4)),  # a shifted by half of its height, 4 mm
        make_case(2, 1, square(2)),  # a invented, b missed
    ]
    return evaluate(cases, predict_square, DATA, SUBJECT)


def test_scores_are_at_source_resolution_in_mm(report: Report) -> None:
    first, second, third = (case.scores for case in report.cases)
    assert (first["a"].dice, first["a"].hd_mm) == (1.0, 0.0)
    assert second["a"].dice == pytest.approx(0.5)
    assert second["a"].iou == pytest.approx(1 / 3)
    assert second["a"].hd_mm == pytest.approx(4.0)  # two rows of 2 mm
    assert (third["a"].presence, third["b"].presence) == ("invented", "missed")


def test_means_leave_out_what_is_undefined_and_say_how_many(report: Report) -> None:
    per_class = report.per_class()
    assert (per_class["a"]["dice"].mean, per_class["a"]["dice"].median, per_class["a"]["dice"].n) == (0.5, 0.5, 3)
    assert per_class["a"]["dice"].std == pytest.approx(math.sqrt((0.25 + 0.25) / 3))
    assert (per_class["a"]["hd_mm"].mean, per_class["a"]["hd_mm"].n) == (pytest.approx(2.0), 2)
    assert (per_class["b"]["dice"].mean, per_class["b"]["dice"].n) == (0.0, 1)
    assert (per_class["b"]["assd_mm"].mean, per_class["b"]["assd_mm"].n) == (None, 0)
    assert report.counts() == {
        "a": {"both": 2, "missed": 0, "invented": 1, "absent_in_both": 0},
        "b": {"both": 0, "missed": 1, "invented": 0, "absent_in_both": 2},
    }
    assert report.mean("dice") == pytest.approx(0.25)
    assert report.mean("hd_mm") == pytest.approx(2.0)


def test_a_spread_is_of_the_defined_values() -> None:
    assert Spread.of([0.9, None, 0.0, 0.3]) == Spread(
        mean=pytest.approx(0.4), std=pytest.approx(math.sqrt(0.14)), median=0.3, n=3
    )
    assert Spread.of([None]) == Spread(mean=None, std=None, median=None, n=0)


def test_a_patient_is_the_mean_of_its_cases(report: Report) -> None:
    patients = report.per_patient()
    assert patients["patient001"]["a"]["dice"] == pytest.approx(0.75)
    assert patients["patient001"]["b"]["dice"] is None
    assert patients["patient002"]["b"]["dice"] == 0.0


def test_files(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "out")
    text = (tmp_path / "out" / "report.json").read_text()
    plain = json.loads(text)
    assert "NaN" not in text
    assert plain["format_version"] == 1
    assert plain["subject"]["split_digest"] == "0123"
    assert plain["subject"]["refinement"] == ""
    assert plain["summary"]["per_class"]["b"]["hd_mm"] == {"mean": None, "std": None, "median": None, "n": 0}
    assert plain["summary"]["per_class"]["b"]["missed"] == 1
    assert (plain["summary"]["num_cases"], plain["summary"]["num_patients"]) == (3, 2)
    with (tmp_path / "out" / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    assert rows[-1] == {
        "case_id": "patient002_frame01",
        "patient_id": "patient002",
        "frame": "frame01",
        "class": "b",
        "presence": "missed",
        "dice": "0.0",
        "iou": "0.0",
        "hd_mm": "",
        "hd95_mm": "",
        "assd_mm": "",
        "reference_ml": "0.32",
        "predicted_ml": "0.0",
        "expected_dice": "",
    }
    assert not (tmp_path / "out" / "heart.csv").exists()


class PartlyLabelled(NiftiReader):
    """A further data set, whose masks leave the lower half of each slice open."""

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        labels = super().load_mask(case, data).labels
        labels[:, 6:] = IGNORE
        return Mask(labels)


def test_what_nobody_labelled_belongs_to_no_volume(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maag.evaluate.measure.reader_of", lambda name: PartlyLabelled())
    report = evaluate([make_case(1, 1, square(1, start=4))], lambda *_: Predicted(square(1, start=3)), DATA, SUBJECT)
    voxel_ml = 5 * 2 * 1 / 1000
    pair = report.volume_pairs()["patient001_frame01"]["a"]
    assert (pair.reference, pair.predicted) == pytest.approx((2 * 2 * 4 * voxel_ml, 2 * 3 * 4 * voxel_ml))


def test_table(report: Report) -> None:
    header, *rows = table(report)
    assert {len(row) for row in [header, *rows]} == {10}
    assert [row[0] for row in rows] == ["a", "b", "mean"]
    assert rows[0][1:3] == ["0.500", "0.408"]
    assert rows[1][4] == "-"
    assert rows[1][7:] == ["1", "0", "2"]


def test_progress_is_told(make_case: MakeCase) -> None:
    seen: list[tuple[int, int]] = []
    cases = [make_case(1, 1, square(1)), make_case(1, 2, square(1))]
    evaluate(cases, predict_square, DATA, SUBJECT, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_cases_without_a_mask_are_left_out_and_named(make_case: MakeCase) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate(
        [make_case(7, 1, square(1)), make_case(7, 2, None)],
        predict_square,
        DATA,
        SUBJECT,
        lambda done, total: seen.append((done, total)),
    )
    assert [case.case_id for case in report.cases] == ["patient007_frame01"]
    plain = report.to_dict()
    assert plain["without_mask"] == ["patient007_frame02"]
    assert (plain["summary"]["num_cases"], plain["summary"]["num_without_mask"]) == (1, 1)
    assert seen == [(1, 1)]


def test_no_case_with_a_mask_is_an_error(make_case: MakeCase) -> None:
    with pytest.raises(DataError, match=r"none of the 1 cases of split 'val' has a mask .*: patient007_frame02; put"):
        evaluate([make_case(7, 2, None)], predict_square, DATA, SUBJECT)


def test_no_case_is_an_error() -> None:
    with pytest.raises(DataError, match="'val' holds no case"):
        evaluate([], predict_square, DATA, SUBJECT)


def test_a_runner_predicts(make_case: MakeCase) -> None:
    report = evaluate([make_case(1, 1, square(1))], runner_predictor(Nothing(3), DATA), DATA, SUBJECT)
    assert report.cases[0].scores["a"].presence == "missed"


def test_a_refinement_changes_what_is_measured(make_case: MakeCase) -> None:
    class SquareAndSpeck:
        name = "square and speck"

        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            probabilities = np.zeros((len(images), 3, *images.shape[2:]), np.float32)
            probabilities[:, 1, 8:16, 4:8] = 1  # A row of 2 mm is two on the training grid.
            probabilities[:, 1, 22:26, 10:13] = 1
            probabilities[:, 0] = 1 - probabilities[:, 1]
            return probabilities

    data = DataConfig(classes=("background", "a", "b"), size_px=(32, 16), spacing_mm=1.0)
    cases = [make_case(1, 1, square(1))]
    dice = [
        evaluate(cases, runner_predictor(SquareAndSpeck(), data, refinement), data, SUBJECT).mean("dice")
        for refinement in (Refinement(), Refinement(largest_component=True))
    ]
    assert dice == [pytest.approx(0.5 * 2 * 16 / (16 + 22) * 2, abs=0.05), 1.0]


@pytest.mark.parametrize(
    "name", ["patient001_frame01.nii.gz", "deep/patient001/patient001_frame01_pred.nii.gz", "patient001_frame01.nii"]
)
def test_predictions_from_a_folder(make_case: MakeCase, tmp_path: Path, name: str) -> None:
    cases = [make_case(1, 1, square(1))]
    write_nifti(tmp_path / "predictions" / name, square(1))
    write_nifti(tmp_path / "predictions" / "._patient001_frame01.nii.gz", square(2))
    report = evaluate(cases, file_predictor(prediction_files(tmp_path / "predictions", cases), DATA), DATA, SUBJECT)
    assert report.mean("dice") == 1.0


def test_an_absent_prediction_is_named(make_case: MakeCase, tmp_path: Path) -> None:
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


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
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
    # Neither does a file serve a case because the others of its name are not measured.
    by_folder[0].unlink()
    with pytest.raises(DataError, match="no prediction for 1 of 1 cases: video101_0001"):
        prediction_files(labels, cases[:1], cases)
    (labels / "0001.png").touch()
    with pytest.raises(DataError, match="no prediction for 1 of 3 cases: video101_0001"):
        prediction_files(labels, cases)


def test_predictions_behind_links_are_found(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1))
    write_nifti(tmp_path / "elsewhere" / "patient001_frame01.nii.gz", square(1))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "fold0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    found = prediction_files(tmp_path / "labels", [case])
    assert found == {case.case_id: tmp_path / "labels" / "fold0" / "patient001_frame01.nii.gz"}


def test_a_prediction_that_was_not_fetched_is_no_absent_one(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1))
    link = tmp_path / "labels" / "patient001_frame01.nii.gz"
    link.parent.mkdir()
    link.symlink_to("../.git/annex/objects/gone")
    files = prediction_files(link.parent, [case])
    with pytest.raises(StorageError, match=r"a link to \S*gone, where nothing is; fetch what it stands for"):
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


def test_headers_that_say_otherwise_are_told(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(1, 1, square(1))
    turned = tmp_path / "turned.nii.gz"
    image = nibabel.load(case.images[0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-1.0, 2.0, 4.0, 1.0])), turned)
    axes, spacing = differences(turned, case.images[0])
    assert f"{turned}: its header has axes LAS, its image's RAS" in axes
    assert "voxels of 1 x 2 x 4 mm, its image's of 1 x 2 x 5 mm" in spacing
    assert differences(case.masks[0], case.images[0]) == ()
    moved = tmp_path / "moved.nii.gz"
    elsewhere = image.affine.copy()
    elsewhere[:3, 3] = 40
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), elsewhere), moved)
    assert differences(moved, case.images[0]) == ()
    [origin] = differences(moved, case.images[0], origins=True)
    assert origin.startswith(f"{moved}: its header has the origin (40, 40, 40) mm, its image's (0, 0, 0) mm; voxels")
    elsewhere[:3, 3] = [0.4, -0.9, 2.4]  # voxels of 1 x 2 x 5 mm
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), elsewhere), moved)
    assert differences(moved, case.images[0], origins=True) == ()
    silent = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    silent.header.set_zooms((1, 2, 5))
    nibabel.save(silent, moved)
    assert differences(moved, case.images[0], origins=True) == ()


def test_no_folder_of_predictions(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such folder"):
        prediction_files(tmp_path / "nowhere", [])


def test_a_mask_of_another_shape_is_refused(make_case: MakeCase) -> None:
    case = make_case(1, 1, np.zeros((2, 12, 11), np.uint8))
    with pytest.raises(DataError, match=r"case patient001_frame01: the mask \S+ has shape \(2, 12, 11\) and the image"):
        evaluate([case], predict_square, DATA, SUBJECT)


@pytest.mark.parametrize("prediction", [square(1)[:, :8], square(1).transpose(1, 0, 2)])  # smaller, or of turned axes
def test_a_prediction_of_another_shape_is_refused(make_case: MakeCase, tmp_path: Path, prediction: Labels) -> None:
    cases = [make_case(1, 1, square(1))]
    path = write_nifti(tmp_path / "predictions" / "patient001_frame01.nii.gz", prediction)
    shape = load_labels(path, range(3))[0].shape
    assert shape == prediction.shape
    with pytest.raises(DataError, match=r"patient001_frame01: its prediction has shape .* \(2, 12, 12\)") as refused:
        evaluate(cases, file_predictor(prediction_files(path.parent, cases), DATA), DATA, SUBJECT)
    assert str(shape) in str(refused.value)
