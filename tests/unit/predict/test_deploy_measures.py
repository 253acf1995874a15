"""Which frames are end-diastole and end-systole, and the measures computed from them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deploy.predicting.measures import require_distinct_rows, write_measures
from maag.errors import ConfigError
from maag.storage.local import LocalStore

CLASSES = ("background", "RV", "MYO", "LV")


def heart(lv: float, rv: float = 50.0, myo: float = 100.0) -> dict[str, float]:
    return {"LV": lv, "RV": rv, "MYO": myo}


def measure(out: Path, volumes: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, str]]:
    count = write_measures(LocalStore(out), volumes, CLASSES)
    with (out / "measures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == count
    return rows


def test_mass_is_measured_at_end_diastole_and_ventricles_share_the_frames(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, {"a.nii.gz": [heart(80, 90, 110), heart(150, 100, 120), heart(60, 70, 99)]})
    assert (row["ed_frame"], row["es_frame"]) == ("2", "3")
    assert (row["LV_edv_ml"], row["LV_esv_ml"], row["LV_sv_ml"], row["LV_ef_percent"]) == ("150", "60", "90", "60.0")
    assert (row["RV_edv_ml"], row["RV_ef_percent"]) == ("100", "30.0")
    assert row["myo_mass_g"] == "126.0"


def test_a_cine_named_like_a_frame_keeps_all_its_frames(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, {"p_frame07.nii.gz": [heart(80), heart(150), heart(60)]})
    assert (row["patient"], row["ed_frame"], row["es_frame"]) == ("p_frame07", "2", "3")


def test_frames_are_chosen_by_volume_and_not_by_number(tmp_path: Path) -> None:
    volumes = {"s/one/patient001_frame01.nii.gz": [heart(50)], "s/one/patient001_frame12.nii.gz": [heart(120)]}
    (row,) = measure(tmp_path, volumes)
    assert (row["patient"], row["ed_frame"], row["es_frame"]) == ("s/one/patient001", "12", "1")


@pytest.mark.parametrize("ending", ["nii.gz", "dcm"])
def test_phases_of_an_lvsc_study_are_frames_with_their_own_numbers(tmp_path: Path, ending: str) -> None:
    phases = {0: 140, 1: 150, 2: 60}
    volumes = {f"s/DET0000101_ph{phase:02}.{ending}": [heart(lv)] for phase, lv in phases.items()}
    (row,) = measure(tmp_path, volumes)
    assert (row["patient"], row["ed_frame"], row["es_frame"], row["LV_ef_percent"]) == (
        "s/DET0000101",
        "1",
        "2",
        "60.0",
    )


def test_a_phase_sums_its_slices_of_all_sizes_and_is_excluded_without_them(tmp_path: Path) -> None:
    name = "DET0000101_ph{:02}{}.nii.gz"
    volumes = {name.format(phase, ""): [heart(lv)] for phase, lv in ((0, 100), (1, 60), (2, 10))}
    volumes |= {name.format(phase, "_size2"): [heart(lv)] for phase, lv in ((0, 20), (1, 12))}
    require_distinct_rows(volumes)
    (row,) = measure(tmp_path, volumes)
    assert (row["ed_frame"], row["es_frame"], row["LV_edv_ml"], row["LV_esv_ml"]) == ("0", "1", "120", "72")


@pytest.mark.parametrize("target", ["a/p.nii", "a/p.NII.GZ", "a/p.dcm", "a/p.png"])
def test_a_single_frame_has_no_measures(tmp_path: Path, target: str) -> None:
    (row,) = measure(tmp_path, {target: [heart(140)]})
    assert row.pop("patient") == "a/p"
    assert set(row.values()) == {""}


def test_a_frame_without_a_ventricle_is_not_end_systole(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, {"a.nii": [heart(0), heart(100), heart(40)]})
    assert (row["ed_frame"], row["es_frame"], row["LV_ef_percent"]) == ("2", "3", "60.0")
    (row,) = measure(tmp_path, {"a.nii": [heart(0), heart(100)]})
    assert (row["ed_frame"], row["es_frame"], row["LV_ef_percent"]) == ("", "", "")


def test_a_patient_without_any_ventricle_has_no_ejection_fraction(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, {"a.nii": [heart(0, 0), heart(0, 0)]})
    assert (row["LV_edv_ml"], row["LV_ef_percent"], row["RV_ef_percent"]) == ("", "", "")


def test_patients_with_one_name_in_two_folders_get_separate_rows(tmp_path: Path) -> None:
    rows = measure(tmp_path, {f"{site}/patient001_frame01.nii.gz": [heart(100)] for site in ("x", "y")})
    assert [row["patient"] for row in rows] == ["x/patient001", "y/patient001"]


@pytest.mark.parametrize(
    "targets",
    [
        ("s/a.nii", "s/a.nii.gz"),
        ("a.png", "a.nii.gz"),
        ("a_frame01.nii", "a_frame01.nii.gz"),
        ("a_frame1.nii", "a_frame01.nii"),
        ("a.nii", "a_frame12.nii"),
        ("DET0000101_ph00.nii", "DET0000101_ph0.nii"),
        ("a_frame12.nii", "a.nii"),
    ],
)
def test_two_volumes_that_would_share_a_row_are_refused(targets: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"{targets[0]} and {targets[1]} would share the patient .*two calls"):
        require_distinct_rows(targets)


def test_frames_of_a_patient_and_namesakes_in_other_folders_are_accepted() -> None:
    require_distinct_rows(["x/a_frame01.nii", "x/a_frame12.nii", "y/a_frame01.nii", "a.nii", "a_4d.nii"])


def test_a_missing_ventricle_has_0_ml_and_no_ejection_fraction(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, {"a.nii": [heart(100, 0.0), heart(40, 0.0)]})
    assert [row[f"RV_{name}"] for name in ("edv_ml", "esv_ml", "sv_ml", "ef_percent")] == ["0.0", "0.0", "0.0", ""]
