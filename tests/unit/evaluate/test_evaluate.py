"""Scores of cases, and their summaries by class, case and patient."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from background_runner import BackgroundRunner
from numpy.typing import NDArray
from square_masks import DATA, SUBJECT, MakeCase, square

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, NiftiReader
from maag.data.files.volume import Volume
from maag.errors import DataError, StorageError
from maag.evaluate.measure import Predicted, evaluate, runner_predictor
from maag.evaluate.report import Report, Spread
from maag.evaluate.tables import table
from maag.inference import Refinement
from maag.labels import IGNORE


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


def test_scores_are_measured_at_source_resolution_in_mm(report: Report) -> None:
    first, second, third = (case.scores for case in report.cases)
    assert (first["a"].dice, first["a"].hd_mm) == (1.0, 0.0)
    assert second["a"].dice == pytest.approx(0.5)
    assert second["a"].iou == pytest.approx(1 / 3)
    assert second["a"].hd_mm == pytest.approx(4.0)  # two rows of 2 mm
    assert (third["a"].presence, third["b"].presence) == ("invented", "missed")


def test_means_exclude_undefined_scores_and_count_the_rest(report: Report) -> None:
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


def test_spread_summarises_only_defined_values() -> None:
    assert Spread.of([0.9, None, 0.0, 0.3]) == Spread(
        mean=pytest.approx(0.4), std=pytest.approx(math.sqrt(0.14)), median=0.3, n=3
    )
    assert Spread.of([None]) == Spread(mean=None, std=None, median=None, n=0)


def test_patient_score_is_the_mean_of_its_cases(report: Report) -> None:
    patients = report.per_patient()
    assert patients["patient001"]["a"]["dice"] == pytest.approx(0.75)
    assert patients["patient001"]["b"]["dice"] is None
    assert patients["patient002"]["b"]["dice"] == 0.0


def test_report_is_written_as_json_and_csv(report: Report, tmp_path: Path) -> None:
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


def test_tables_escape_names_that_are_not_utf_8_like_the_json(report: Report, tmp_path: Path) -> None:
    odd = replace(report.cases[0], case_id="h\udce9")
    replace(report, cases=(odd,)).write(tmp_path)
    _, row, *_ = csv.reader((tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines())
    assert row[0] == "h\\udce9"
    assert '"case_id": "h\\udce9"' in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_unlabelled_voxels_are_excluded_from_volumes(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maag.evaluate.measure.reader_of", lambda name: PartlyLabelled())
    report = evaluate([make_case(1, 1, square(1, start=4))], lambda *_: Predicted(square(1, start=3)), DATA, SUBJECT)
    voxel_ml = 5 * 2 * 1 / 1000
    pair = report.volume_pairs()["patient001_frame01"]["a"]
    assert (pair.reference, pair.predicted) == pytest.approx((2 * 2 * 4 * voxel_ml, 2 * 3 * 4 * voxel_ml))


def test_table_has_a_row_for_each_class_and_the_mean(report: Report) -> None:
    header, *rows = table(report)
    assert {len(row) for row in [header, *rows]} == {10}
    assert [row[0] for row in rows] == ["a", "b", "mean"]
    assert rows[0][1:3] == ["0.500", "0.408"]
    assert rows[1][4] == "-"
    assert rows[1][7:] == ["1", "0", "2"]


def test_progress_is_reported(make_case: MakeCase) -> None:
    seen: list[tuple[int, int]] = []
    cases = [make_case(1, 1, square(1)), make_case(1, 2, square(1))]
    evaluate(cases, predict_square, DATA, SUBJECT, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_cases_without_a_mask_are_excluded_and_reported(make_case: MakeCase) -> None:
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


def test_cases_without_any_mask_are_refused(make_case: MakeCase) -> None:
    with pytest.raises(DataError, match=r"none of the 1 cases of split 'val' has a mask .*: patient007_frame02; add"):
        evaluate([make_case(7, 2, None)], predict_square, DATA, SUBJECT)


def test_error_names_only_ten_of_many_cases_without_a_mask(make_case: MakeCase) -> None:
    with pytest.raises(DataError, match=r"none of the 12 cases .*, patient010_frame01 and 2 more; add"):
        evaluate([make_case(patient, 1, None) for patient in range(1, 13)], predict_square, DATA, SUBJECT)


def test_a_split_without_cases_is_refused() -> None:
    with pytest.raises(DataError, match="'val' holds no case"):
        evaluate([], predict_square, DATA, SUBJECT)


def test_a_structure_that_the_runner_does_not_predict_is_missed(make_case: MakeCase) -> None:
    report = evaluate([make_case(1, 1, square(1))], runner_predictor(BackgroundRunner(3), DATA), DATA, SUBJECT)
    assert report.cases[0].scores["a"].presence == "missed"


def test_refinement_changes_the_scores(make_case: MakeCase) -> None:
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


def test_a_mask_of_another_shape_is_refused(make_case: MakeCase) -> None:
    case = make_case(1, 1, np.zeros((2, 12, 11), np.uint8))
    with pytest.raises(DataError, match=r"case patient001_frame01: the mask \S+ has shape \(2, 12, 11\) and the image"):
        evaluate([case], predict_square, DATA, SUBJECT)


def test_expected_dice_is_corrected_by_the_shortfall(make_case: MakeCase) -> None:
    class Half:
        name = "half"

        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            probabilities = np.full((len(images), 3, *images.shape[2:]), 0.25, np.float32)
            probabilities[:, 1] = 0.5
            return probabilities

    cases = [make_case(1, 1, square(1))]
    (plain,), (corrected,) = (
        evaluate(cases, runner_predictor(Half(), DATA, shortfalls={"a": shortfall}), DATA, SUBJECT).cases
        for shortfall in (1.0, 1.5)
    )
    assert plain.expected_dice["a"] == pytest.approx(2 / 3)
    assert corrected.expected_dice["a"] == pytest.approx(1 / 2)


def test_unreadable_cases_are_excluded_if_others_remain(make_case: MakeCase) -> None:
    def predict(case: Case, volume: Volume) -> Predicted:
        if case.frame == "frame02":
            raise StorageError("cannot read it")
        return predict_square(case, volume)

    cases = [make_case(1, 1, square(1)), make_case(1, 2, square(1))]
    report = evaluate(cases, predict, DATA, SUBJECT, skip_unreadable=True)
    assert [case.frame for case in report.cases] == ["frame01"]
    assert list(report.failed) == ["patient001_frame02"]
    with pytest.raises(StorageError):
        evaluate(cases, predict, DATA, SUBJECT)
    with pytest.raises(StorageError):
        evaluate(cases[1:], predict, DATA, SUBJECT, skip_unreadable=True)
