"""Which patients train with which labels in each kind of supervision, and what is refused before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from acdc_supervision import make_supervision

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.catalog import write_phantom
from maag.data.datasets.acdc import SPLIT0
from maag.data.slices.shapes import prepare_shapes
from maag.data.slices.supervision import ineffective_settings, supervise
from maag.data.split_making import make_split
from maag.data.splits import PARTS, Patient
from maag.errors import SplitError
from maag.labels import IGNORE

PATIENTS = [Patient(patient_id=f"patient{n:03}", scribbled=True, masked=True) for n in range(1, 101)]


@pytest.mark.parametrize(("fraction", "kept"), [(0.05, 2), (0.1, 4), (0.2, 7), (0.5, 18), (1.0, 35)])
def test_semi_supervision_keeps_some_scribbles_and_the_images_of_all_patients(
    tiny_config: Config, fraction: float, kept: int
) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": fraction, "loss.adversarial_unlabelled": 0.2}
    data = codec.override(tiny_config, changes).data
    split = make_split(PATIENTS, data, SPLIT0)
    assert (len(split.scribbled), len(split.unlabelled), len(split.shapes)) == (kept, 35 - kept, 35)
    weak = make_split(PATIENTS, codec.override(tiny_config, {"data.scribbled_fraction": fraction}).data, SPLIT0)
    assert (weak.scribbled, weak.unlabelled) == (split.scribbled, ())


def test_a_larger_scribbled_fraction_contains_a_smaller_one(tiny_config: Config) -> None:
    chosen = [
        set(make_split(PATIENTS, codec.override(tiny_config, {"data.scribbled_fraction": part}).data, SPLIT0).scribbled)
        for part in (0.1, 0.3, 0.9)
    ]
    assert chosen[0] < chosen[1] < chosen[2]


def test_mixed_and_dense_supervision_split_by_the_configured_fractions(tiny_config: Config) -> None:
    mixed = make_split(
        PATIENTS,
        codec.override(
            tiny_config, {"data.supervision": "mixed", "data.dense_fraction": 0.2, "data.shapes_fraction": 0.4}
        ).data,
        SPLIT0,
    )
    assert (len(mixed.dense), len(mixed.scribbled), len(mixed.shapes)) == (7, 28, 14)
    dense = make_split(PATIENTS, codec.override(tiny_config, {"data.supervision": "dense"}).data, SPLIT0)
    assert (len(dense.dense), dense.scribbled) == (35, ())


def test_a_fraction_that_leaves_no_patient_is_refused(tiny_config: Config) -> None:
    data = codec.override(tiny_config, {"data.scribbled_fraction": 0.01}).data
    with pytest.raises(SplitError, match=r"data\.scribbled_fraction=0\.01 of 35 patients leaves none; .* least 0\.029"):
        make_split(PATIENTS, data, SPLIT0)
    data = codec.override(tiny_config, {"data.shapes_fraction": 0.01}).data
    with pytest.raises(SplitError, match=r"data\.shapes_fraction=0\.01"):
        make_split(PATIENTS, data)
    data = codec.override(tiny_config, {"data.supervision": "mixed", "data.dense_fraction": 0.999}).data
    with pytest.raises(SplitError, match=r"data\.dense_fraction=0\.999 of 35 patients leaves none with scribbles"):
        make_split(PATIENTS, data, SPLIT0)


def test_patients_are_assigned_to_parts_by_their_labels(tiny_config: Config) -> None:
    patients = [
        *(Patient(patient_id=f"s{n}", scribbled=True, masked=False) for n in range(6)),
        *(Patient(patient_id=f"m{n}", scribbled=False, masked=True) for n in range(6)),
        *(Patient(patient_id=f"u{n}", scribbled=False, masked=False) for n in range(3)),
        Patient(patient_id="v", scribbled=True, masked=True, part="val"),
        Patient(patient_id="t", scribbled=False, masked=True, part="test"),
    ]
    split = make_split(patients, tiny_config.data)
    assert set(split.scribbled) == {f"s{n}" for n in range(6)}
    assert set(split.shapes) == {f"m{n}" for n in range(6)}
    assert set(split.unlabelled) == {f"u{n}" for n in range(3)}
    assert (split.val, split.test) == (("v",), ("t",))


def patients_with(scribbles_only: int = 0, masks_only: int = 0, both: int = 0) -> list[Patient]:
    """Training patients, and one each for validation and test."""
    kinds = [*[(True, False)] * scribbles_only, *[(False, True)] * masks_only, *[(True, True)] * both]
    train = [
        Patient(patient_id=f"p{n}", scribbled=scribbled, masked=masked) for n, (scribbled, masked) in enumerate(kinds)
    ]
    return [
        *train,
        Patient(patient_id="v", scribbled=False, masked=True, part="val"),
        Patient(patient_id="t", scribbled=False, masked=True, part="test"),
    ]


@pytest.mark.parametrize(
    ("patients", "supervision", "foreign", "expected"),
    [
        (patients_with(masks_only=7), "dense", (), {"dense": 4, "shapes": 3}),
        (patients_with(masks_only=7), "dense", ("other/a",), {"dense": 7, "shapes": 1}),
        (patients_with(masks_only=1), "dense", (), {"dense": 1}),
        (patients_with(scribbles_only=5, masks_only=4), "dense", (), {"dense": 2, "shapes": 2, "unlabelled": 5}),
        (patients_with(scribbles_only=5, both=4), "dense", (), {"dense": 2, "shapes": 2, "unlabelled": 5}),
        (patients_with(masks_only=5, both=5), "dense", (), {"dense": 5, "shapes": 5}),
        (patients_with(scribbles_only=8, masks_only=6), "mixed", (), {"scribbled": 8, "dense": 2, "shapes": 4}),
        (patients_with(scribbles_only=8, both=6), "mixed", (), {"scribbled": 8, "dense": 2, "shapes": 4}),
        (patients_with(8, 6), "mixed", ("other/a",), {"scribbled": 8, "dense": 6, "shapes": 1}),
        (patients_with(both=10), "mixed", (), {"scribbled": 4, "dense": 1, "shapes": 5}),
    ],
)  # fmt: skip
def test_masks_supervise_patients_with_and_without_scribbles(
    tiny_config: Config, patients: list[Patient], supervision: str, foreign: tuple[str, ...], expected: dict[str, int]
) -> None:
    split = make_split(patients, codec.override(tiny_config, {"data.supervision": supervision}).data, None, foreign)
    assert {part: len(getattr(split, part)) for part in PARTS if getattr(split, part)} == {
        **expected,
        "val": 1,
        "test": 1,
    }
    known = {patient.patient_id: patient for patient in patients}
    assert all(known[patient].masked for patient in split.dense)
    assert all(known[patient].scribbled for patient in split.scribbled)


def test_missing_labels_for_the_supervision_are_refused(tiny_config: Config) -> None:
    mixed = codec.override(tiny_config, {"data.supervision": "mixed"}).data
    with pytest.raises(SplitError, match=r"mixed: none of the 0 .* has scribbles; add some, or use .*=dense"):
        make_split(patients_with(masks_only=5), mixed)
    with pytest.raises(SplitError, match=r"mixed: none of the 5 .* has a mask; add some, or use data.supervision=weak"):
        make_split(patients_with(scribbles_only=5), mixed)
    dense = codec.override(tiny_config, {"data.supervision": "dense"}).data
    with pytest.raises(SplitError, match=r"0 are left to train on; validation needs .* with a mask and training anoth"):
        make_split(patients_with(scribbles_only=5), dense)


def test_dense_supervision_trains_on_masks_alone(tiny_config: Config, prepared: PreparedData) -> None:
    bare = replace(prepared, cases=tuple(replace(case, raters=()) for case in prepared.cases))
    config = codec.override(tiny_config, {"data.supervision": "dense", "data.split": "random"})
    split = make_split(bare.patients, config.data)
    found = supervise(bare, split, config)
    assert len(found.dense)
    assert len(found.real)
    with pytest.raises(SplitError, match="none of the patients that train with masks has any"):
        supervise(bare, replace(split, dense=()), config)


@pytest.mark.slow
def test_shapes_of_another_data_set_leave_all_patients_to_train(
    tiny_config: Config, prepared: PreparedData, tmp_path: Path
) -> None:
    foreign = tuple(f"other/{patient}" for patient in prepared.patient_ids)
    data = codec.override(tiny_config, {"data.split": "random"}).data
    split = make_split(prepared.patients, data, SPLIT0, foreign)
    assert split.shapes == foreign
    assert len(split.scribbled) == 4
    write_phantom("acdc", tmp_path / "other", 4, seed=5)
    other = prepare_shapes("acdc", tmp_path / "other", tiny_config.data, tmp_path / "cache")
    found = supervise(prepared, split, tiny_config, other)
    assert len(found.real) == len(other.masks)


def test_settings_without_effect_are_reported(tiny_config: Config) -> None:
    semi = codec.override(tiny_config, {"data.supervision": "semi", "loss.adversarial_unlabelled": 0.2})
    half_scribbled = codec.override(semi, {"data.scribbled_fraction": 0.5})
    weights = codec.override(tiny_config, {"data.rater_weights": [1, 2]})
    weighted = codec.override(weights, {"data.raters": "weighted"})

    def notes(config: Config, *raters: str) -> list[str]:
        return ineffective_settings(config, make_split(PATIENTS, config.data, SPLIT0), raters)

    assert "no patient is unlabelled; lower data.scribbled_fraction" in notes(semi, "a")[0]
    assert "only weighted uses them" in notes(weights, "a", "b")[0]
    assert "there is only one rater" in notes(weighted, "a")[0]
    assert not notes(half_scribbled, "a") + notes(weighted, "a", "b") + notes(tiny_config, "a")


def test_a_class_without_scribbles_is_refused(tiny_config: Config, prepared: PreparedData) -> None:
    scribbles = np.array(prepared.scribbles)
    scribbles[scribbles == 2] = IGNORE
    with pytest.raises(SplitError, match="no training patient has a stroke of class MYO"):
        make_supervision(replace(prepared, scribbles=scribbles), tiny_config)
