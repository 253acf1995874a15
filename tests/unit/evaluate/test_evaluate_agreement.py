"""Agreement of volumes and cardiac measures with those of the masks."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maag.evaluate.agreement import Agreement, Pair, agreements, heart_pairs
from maag.evaluate.page import write_page
from maag.evaluate.report import CaseScores, Report, Subject
from maag.evaluate.tables import agreement_table
from maag.metrics import ClassScores

CLASSES = ("RV", "MYO", "LV")
SAME = 12.438491136740915
"""A value that differs from the mean of 28 copies of it by rounding."""


def pairs(*values: tuple[float, float]) -> list[Pair]:
    return [Pair(reference=reference, predicted=predicted) for reference, predicted in values]


def heart(
    lv: tuple[float, float], rv: tuple[float, float] = (50, 50), myo: tuple[float, float] = (100, 100)
) -> dict[str, Pair]:
    return dict(zip(CLASSES, pairs(rv, myo, lv), strict=True))


def report_of(hearts: Mapping[str, Sequence[dict[str, Pair]]]) -> Report:
    cases = [
        CaseScores(
            case_id=f"{patient}_frame{number:02}", patient_id=patient, frame=f"frame{number:02}",
            scores={name: ClassScores(presence="both", dice=0.9) for name in CLASSES}, volumes_ml=volumes,
        )
        for patient, frames in hearts.items() for number, volumes in enumerate(frames, start=1)
    ]  # fmt: skip
    return Report(subject=Subject(model="m", dataset="acdc", split="val"), cases=tuple(cases))


def test_bias_and_limits_follow_bland_and_altman() -> None:
    found = Agreement.of(pairs((100, 104), (120, 118), (80, 84), (60, 62)))
    assert (found.n, found.reference_mean, found.bias, found.mae) == (4, 90, 2, 3)
    assert found.sd == pytest.approx(math.sqrt(8))
    assert found.lower == pytest.approx(2 - 1.96 * math.sqrt(8))
    assert found.upper == pytest.approx(2 + 1.96 * math.sqrt(8))
    assert found.correlation == pytest.approx(1880 / math.sqrt(2000 * 1784))


def test_statistics_undefined_for_few_or_equal_pairs_are_none() -> None:
    alone = Agreement.of(pairs((10, 12)))
    assert (alone.bias, alone.sd, alone.lower, alone.upper, alone.correlation) == (2, None, None, None, None)
    assert Agreement.of(pairs((10, 12), (20, 21))).correlation is None
    assert Agreement.of(pairs((10, 12), (10, 13), (10, 14))).correlation is None


@pytest.mark.parametrize("shift", [0, 1e-15], ids=["the same", "the same but for rounding"])
@pytest.mark.filterwarnings("error")
def test_correlation_with_a_constant_is_undefined(shift: float) -> None:
    found = pairs(*((SAME + shift * (place % 2), place) for place in range(28)))
    assert Agreement.of(found).correlation is None
    swapped = [Pair(reference=pair.predicted, predicted=pair.reference) for pair in found]
    assert Agreement.of(swapped).correlation is None


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_undefined_correlation_is_null_in_json_and_a_dash_in_tables(tmp_path: Path) -> None:
    report = report_of({f"p{place}": [heart((SAME, place))] for place in range(28)})
    report.write(tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    volumes = json.loads(text)["summary"]["agreement"]["volume_ml"]
    assert [volumes[name]["correlation"] for name in CLASSES] == [None, None, None]
    assert [row[-1] for row in agreement_table(report)[1:]] == ["-", "-", "-"]
    write_page(tmp_path, report)
    page = (tmp_path / "report.html").read_text()
    assert "nan" not in re.findall(r"<td[^>]*>([^<]*)</td>", page)


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=1, max_size=20))
def test_agreement_does_not_depend_on_pair_order(values: list[tuple[float, float]]) -> None:
    found, turned = Agreement.of(pairs(*values)), Agreement.of(pairs(*reversed(values)))
    assert found.bias == pytest.approx(turned.bias)
    assert abs(found.bias) <= found.mae + 1e-9
    if found.lower is not None and found.upper is not None:
        assert found.lower <= found.bias <= found.upper
    if found.correlation is not None:
        assert -1 - 1e-9 <= found.correlation <= 1 + 1e-9


def test_end_diastole_and_systole_are_chosen_by_the_masks() -> None:
    frames = {"p": {1: heart((60, 100)), 12: heart((120, 90), rv=(80, 40))}}
    measured = heart_pairs(frames, CLASSES)["p"]
    assert measured["LV_edv_ml"] == Pair(reference=120, predicted=90)
    assert measured["LV_ef_percent"] == Pair(reference=50, predicted=pytest.approx(100 * (90 - 100) / 90))
    assert measured["RV_edv_ml"] == Pair(reference=80, predicted=40)
    assert measured["myo_mass_g"] == Pair(reference=105, predicted=105)


def test_heart_measures_need_two_frames_with_a_ventricle_in_the_mask() -> None:
    frames = {
        "alone": {1: heart((60, 60))},
        "empty": {1: heart((60, 60)), 12: heart((0, 40))},
        "whole": {1: heart((60, 60)), 12: heart((40, 0))},
    }
    assert list(heart_pairs(frames, CLASSES)) == ["whole"]
    assert heart_pairs({"p": {1: {"liver": Pair(reference=1, predicted=1)}}}, ["liver"]) == {}


def test_measure_undefined_for_either_side_is_excluded() -> None:
    frames = {"p": {1: heart((60, 60), rv=(50, 0)), 12: heart((40, 40), rv=(30, 20))}}
    measured = heart_pairs(frames, CLASSES)
    assert "RV_ef_percent" not in measured["p"]
    assert measured["p"]["RV_edv_ml"] == Pair(reference=50, predicted=0)
    assert "RV_ef_percent" not in agreements(measured)


def test_report_and_table_contain_the_agreement(tmp_path: Path) -> None:
    report = report_of({"p1": [heart((100, 90)), heart((50, 50))], "p2": [heart((120, 130)), heart((40, 42))]})
    report.write(tmp_path)
    agreement = json.loads((tmp_path / "report.json").read_text())["summary"]["agreement"]
    assert agreement["volume_ml"]["LV"]["n"] == 4
    assert agreement["heart"]["LV_edv_ml"] == {
        "n": 2, "reference_mean": 110, "bias": 0, "sd": pytest.approx(math.sqrt(200)), "mae": 10, "correlation": None,
        "lower": pytest.approx(-1.96 * math.sqrt(200)), "upper": pytest.approx(1.96 * math.sqrt(200)),
    }  # fmt: skip
    with (tmp_path / "heart.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 9
    assert rows[0] == {"heart": "p1", "measure": "LV_edv_ml", "reference": "100", "predicted": "90"}
    header, *rows_of_text = agreement_table(report)
    assert {len(row) for row in rows_of_text} == {len(header)}
    assert ["LV edv ml", "2", "110.0", "+0.0", "-27.7 to +27.7", "10.0", "-"] in rows_of_text
    assert [row[0] for row in rows_of_text][:3] == ["RV volume ml", "MYO volume ml", "LV volume ml"]


def test_images_without_pixel_size_have_no_agreement(tmp_path: Path) -> None:
    report_of({"p1": [heart((100, 90)), heart((50, 50))]}).write(tmp_path)
    assert (tmp_path / "heart.csv").exists()
    report = report_of({"p1": [{}, {}]})
    report.write(tmp_path)
    agreement = json.loads((tmp_path / "report.json").read_text())["summary"]["agreement"]
    assert agreement == {"volume_ml": {}, "heart": {}, "expected_dice": {}}
    assert not (tmp_path / "heart.csv").exists()
    assert len(agreement_table(report)) == 1


def test_visits_of_a_patient_are_not_paired_as_frames() -> None:
    visits = report_of({"p1": [heart((100, 90)), heart((50, 50))]})
    apart = replace(visits, cases=tuple(replace(case, case_id=f"p1_{case.frame[-2:]}") for case in visits.cases))
    assert list(visits.heart_pairs()) == ["p1"]
    assert apart.heart_pairs() == {}
    assert list(apart.volume_pairs()) == ["p1_01", "p1_02"]


def test_expected_dice_is_compared_with_the_real_dice(tmp_path: Path) -> None:
    report = report_of({"a": [heart((1, 1))], "b": [heart((1, 1))], "c": [heart((1, 1))]})
    dice = ((0.9, 0.8, None), (0.7, 0.8, 0.6), (0.5, 0.9, 0.7))
    expected: tuple[dict[str, float], ...] = (
        {"RV": 0.8, "MYO": 0.9, "LV": 0.4},  # the real Dice of LV is undefined
        {"RV": 0.7, "MYO": 0.7},
        {"RV": 0.6, "MYO": 0.8, "LV": 0.7},
    )
    scores = [
        {
            name: ClassScores(presence="absent_in_both" if each is None else "both", dice=each)
            for name, each in zip(CLASSES, row, strict=True)
        }
        for row in dice
    ]
    cases = zip(report.cases, scores, expected, strict=True)
    report = replace(
        report, cases=tuple(replace(case, scores=row, expected_dice=estimate) for case, row, estimate in cases)
    )
    found = report.agreement()["expected_dice"]
    assert {name: each.n for name, each in found.items()} == {"RV": 3, "MYO": 3, "LV": 1, "mean": 3}
    assert found["RV"].correlation == pytest.approx(1)
    assert (found["RV"].bias, found["RV"].mae) == (pytest.approx(0), pytest.approx(0.2 / 3))
    assert found["mean"].reference_mean == pytest.approx((0.85 + 0.75 + 0.7) / 3)
    rows = {row[0]: row for row in agreement_table(report)}
    assert rows["RV expected dice"][2:4] == ["0.700", "+0.000"]
    report.write(tmp_path)
    with (tmp_path / "cases.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["expected_dice"] for line in lines if line["case_id"] == "b_frame01"] == ["0.7", "0.7", ""]
