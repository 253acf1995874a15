"""Who trains with which labels in each kind of supervision, and what is refused before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from supervised import supervised

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

PEOPLE = [Patient(patient_id=f"patient{n:03}", scribbled=True, masked=True) for n in range(1, 101)]


@pytest.mark.parametrize(("fraction", "kept"), [(0.05, 2), (0.1, 4), (0.2, 7), (0.5, 18), (1.0, 35)])
def test_semi_keeps_a_part_of_the_scribbles_and_the_images_of_all(
    tiny_config: Config, fraction: float, kept: int
) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": fraction, "loss.adversarial_unlabelled": 0.2}
    data = codec.override(tiny_config, changes).data
    split = make_split(PEOPLE, data, SPLIT0)
    assert (len(split.scribbled), len(split.unlabelled), len(split.shapes)) == (kept, 35 - kept, 35)
    weak = make_split(PEOPLE, codec.override(tiny_config, {"data.scribbled_fraction": fraction}).data, SPLIT0)
    assert (weak.scribbled, weak.unlabelled) == (split.scribbled, ())


def test_a_greater_fraction_holds_the_smaller_one(tiny_config: Config) -> None:
    chosen = [
        set(make_split(PEOPLE, codec.override(tiny_config, {"data.scribbled_fraction": part}).data, SPLIT0).scribbled)
        for part in (0.1, 0.3, 0.9)
    ]
    assert chosen[0] < chosen[1] < chosen[2]


def test_mixed_and_dense_and_fewer_shapes(tiny_config: Config) -> None:
    mixed = make_split(
        PEOPLE,
        codec.override(
            tiny_config, {"data.supervision": "mixed", "data.dense_fraction": 0.2, "data.shapes_fraction": 0.4}
        ).data,
        SPLIT0,
    )
    assert (len(mixed.dense), len(mixed.scribbled), len(mixed.shapes)) == (7, 28, 14)
    dense = make_split(PEOPLE, codec.override(tiny_config, {"data.supervision": "dense"}).data, SPLIT0)
    assert (len(dense.dense), dense.scribbled) == (35, ())


def test_a_fraction_that_leaves_nobody_is_named(tiny_config: Config) -> None:
    data = codec.override(tiny_config, {"data.scribbled_fraction": 0.01}).data
    with pytest.raises(SplitError, match=r"data\.scribbled_fraction=0\.01 of 35 patients leaves none; .* least 0\.029"):
        make_split(PEOPLE, data, SPLIT0)
    data = codec.override(tiny_config, {"data.supervision": "mixed", "data.dense_fraction": 0.999}).data
    with pytest.raises(SplitError, match=r"data\.dense_fraction=0\.999 of 35 patients leaves none with scribbles"):
        make_split(PEOPLE, data, SPLIT0)


def test_ones_own_patients_go_where_their_labels_allow(tiny_config: Config) -> None:
    people = [
        *(Patient(patient_id=f"s{n}", scribbled=True, masked=False) for n in range(6)),
        *(Patient(patient_id=f"m{n}", scribbled=False, masked=True) for n in range(6)),
        *(Patient(patient_id=f"u{n}", scribbled=False, masked=False) for n in range(3)),
        Patient(patient_id="v", scribbled=True, masked=True, part="val"),
        Patient(patient_id="t", scribbled=False, masked=True, part="test"),
    ]
    split = make_split(people, tiny_config.data)
    assert set(split.scribbled) == {f"s{n}" for n in range(6)}
    assert set(split.shapes) == {f"m{n}" for n in range(6)}
    assert set(split.unlabelled) == {f"u{n}" for n in range(3)}
    assert (split.val, split.test) == (("v",), ("t",))


def people_with(scribbles_alone: int = 0, masks_alone: int = 0, both: int = 0) -> list[Patient]:
    """Those who train, and one each to validate and test."""
    kinds = [*[(True, False)] * scribbles_alone, *[(False, True)] * masks_alone, *[(True, True)] * both]
    train = [
        Patient(patient_id=f"p{n}", scribbled=scribbled, masked=masked) for n, (scribbled, masked) in enumerate(kinds)
    ]
    return [
        *train,
        Patient(patient_id="v", scribbled=False, masked=True, part="val"),
        Patient(patient_id="t", scribbled=False, masked=True, part="test"),
    ]


@pytest.mark.parametrize(
    ("people", "supervision", "foreign", "found"),
    [
        (people_with(masks_alone=7), "dense", (), {"dense": 4, "shapes": 3}),
        (people_with(masks_alone=7), "dense", ("other/a",), {"dense": 7, "shapes": 1}),
        (people_with(masks_alone=1), "dense", (), {"dense": 1}),
        (people_with(scribbles_alone=5, masks_alone=4), "dense", (), {"dense": 2, "shapes": 2, "unlabelled": 5}),
        (people_with(scribbles_alone=5, both=4), "dense", (), {"dense": 2, "shapes": 2, "unlabelled": 5}),
        (people_with(masks_alone=5, both=5), "dense", (), {"dense": 5, "shapes": 5}),
        (people_with(scribbles_alone=8, masks_alone=6), "mixed", (), {"scribbled": 8, "dense": 2, "shapes": 4}),
        (people_with(scribbles_alone=8, both=6), "mixed", (), {"scribbled": 8, "dense": 2, "shapes": 4}),
        (people_with(8, 6), "mixed", ("other/a",), {"scribbled": 8, "dense": 6, "shapes": 1}),
        (people_with(both=10), "mixed", (), {"scribbled": 4, "dense": 1, "shapes": 5}),
    ],
)  # fmt: skip
def test_masks_supervise_whoever_drew(
    tiny_config: Config, people: list[Patient], supervision: str, foreign: tuple[str, ...], found: dict[str, int]
) -> None:
    split = make_split(people, codec.override(tiny_config, {"data.supervision": supervision}).data, None, foreign)
    assert {part: len(getattr(split, part)) for part in PARTS if getattr(split, part)} == {**found, "val": 1, "test": 1}
    known = {patient.patient_id: patient for patient in people}
    assert all(known[patient].masked for patient in split.dense)
    assert all(known[patient].scribbled for patient in split.scribbled)


def test_labels_that_supervision_needs_are_named(tiny_config: Config) -> None:
    mixed = codec.override(tiny_config, {"data.supervision": "mixed"}).data
    with pytest.raises(SplitError, match=r"mixed: none of the 0 .* has scribbles; add some, or use .*=dense"):
        make_split(people_with(masks_alone=5), mixed)
    with pytest.raises(SplitError, match=r"mixed: none of the 5 .* has a mask; add some, or use data.supervision=weak"):
        make_split(people_with(scribbles_alone=5), mixed)
    dense = codec.override(tiny_config, {"data.supervision": "dense"}).data
    with pytest.raises(SplitError, match=r"0 are left to train on; validation needs .* with a mask and training anoth"):
        make_split(people_with(scribbles_alone=5), dense)


def test_masks_alone_train_when_dense(tiny_config: Config, prepared: PreparedData) -> None:
    bare = replace(prepared, cases=tuple(replace(case, raters=()) for case in prepared.cases))
    config = codec.override(tiny_config, {"data.supervision": "dense", "data.split": "random"})
    split = make_split(bare.patients, config.data)
    found = supervise(bare, split, config)
    assert len(found.dense)
    assert len(found.real)
    with pytest.raises(SplitError, match="none of the patients that train with masks has any"):
        supervise(bare, replace(split, dense=()), config)


def test_who_was_said_to_train_never_tests(tiny_config: Config) -> None:
    people = [Patient(patient_id=f"p{n}", scribbled=True, masked=True, part="train") for n in range(20)]
    split = make_split(people, tiny_config.data)
    assert split.test == ()
    assert len(split.val) == 3


def test_validation_needs_masks(tiny_config: Config) -> None:
    people = [Patient(patient_id=f"p{n}", scribbled=True, masked=False) for n in range(9)]
    with pytest.raises(SplitError, match="9 patients, 0 with masks: after 0 for validation"):
        make_split(people, tiny_config.data)


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


def test_settings_that_change_nothing_are_named(tiny_config: Config) -> None:
    semi = codec.override(tiny_config, {"data.supervision": "semi", "loss.adversarial_unlabelled": 0.2})
    some = codec.override(semi, {"data.scribbled_fraction": 0.5})
    weights = codec.override(tiny_config, {"data.rater_weights": [1, 2]})
    weighted = codec.override(weights, {"data.raters": "weighted"})

    def told(config: Config, *raters: str) -> list[str]:
        return ineffective_settings(config, make_split(PEOPLE, config.data, SPLIT0), raters)

    assert "no patient is unlabelled; lower data.scribbled_fraction" in told(semi, "a")[0]
    assert "only weighted uses them" in told(weights, "a", "b")[0]
    assert "there is only one rater" in told(weighted, "a")[0]
    assert not told(some, "a") + told(weighted, "a", "b") + told(tiny_config, "a")


def test_a_class_that_nobody_draws_is_named(tiny_config: Config, prepared: PreparedData) -> None:
    scribbles = np.array(prepared.scribbles)
    scribbles[scribbles == 2] = IGNORE
    with pytest.raises(SplitError, match="no training patient has a stroke of class MYO"):
        supervised(replace(prepared, scribbles=scribbles), tiny_config)
