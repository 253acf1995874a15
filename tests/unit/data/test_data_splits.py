"""Which patients are in which part of a split: the published one, random ones, and folds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from maag.config.data import DataConfig
from maag.data.cases import Part
from maag.data.datasets.acdc import SPLIT0
from maag.data.split_making import make_split
from maag.data.splits import PARTS, Patient
from maag.errors import SplitError

ALL = [f"patient{number:03}" for number in range(1, 101)]


def labelled_patients(ids: Iterable[str]) -> list[Patient]:
    return [Patient(patient_id=name, scribbled=True, masked=True) for name in ids]


def test_split0_matches_the_paper() -> None:
    split = make_split(labelled_patients(ALL), DataConfig(), SPLIT0)
    assert split.scheme == "split0"
    assert [len(getattr(split, part)) for part in PARTS] == [35, 0, 0, 35, 15, 15]
    assert sorted({*split.scribbled, *split.shapes, *split.val, *split.test}) == ALL


def test_split0_allows_a_missing_test_fold() -> None:
    split = make_split(labelled_patients(set(ALL) - SPLIT0["test"]), DataConfig(), SPLIT0)
    assert split.scheme == "split0"
    assert split.test == ()


@pytest.mark.parametrize("part", ["scribbled", "shapes", "val"])
def test_split0_without_a_part_needed_for_training_becomes_random(part: str) -> None:
    assert make_split(labelled_patients(set(ALL) - set(SPLIT0[part])), DataConfig(), SPLIT0).scheme == "random-0"


def test_patients_other_than_acdcs_are_split_at_random() -> None:
    assert make_split(labelled_patients(f"case{n}" for n in range(20)), DataConfig(), SPLIT0).scheme == "random-0"


def test_patients_with_only_masks_count_towards_the_dense_fraction() -> None:
    masks_alone = sorted(SPLIT0["scribbled"])[:5]
    patients = [replace(patient, scribbled=patient.patient_id not in masks_alone) for patient in labelled_patients(ALL)]
    split = make_split(patients, DataConfig(supervision="mixed", dense_fraction=0.2), SPLIT0)
    assert (len(split.dense), len(split.scribbled)) == (7, 28)
    assert set(masks_alone) <= set(split.dense)


def test_split0_is_refused_without_its_patients() -> None:
    with pytest.raises(SplitError, match=r"data\.split=split0: the 4 patients .* use data\.split=random"):
        make_split(labelled_patients("abcd"), DataConfig(split="split0"), SPLIT0)


@settings(max_examples=40, deadline=None)
@given(st.integers(12, 120), st.integers(0, 9), st.floats(0.05, 0.4), st.floats(0, 0.4))
def test_a_random_split_is_disjoint_complete_and_repeatable(count: int, seed: int, val: float, test: float) -> None:
    patients = [f"p{number}" for number in range(count)]
    data = DataConfig(split="random", split_seed=seed, val_fraction=val, test_fraction=test)
    split = make_split(labelled_patients(patients), data)
    parts = [patient for part in PARTS for patient in getattr(split, part)]
    assert sorted(parts) == sorted(patients)
    assert split.scribbled
    assert split.val
    assert make_split(labelled_patients(patients[::-1]), data).digest == split.digest


def test_a_random_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    data = DataConfig(split="random", split_seed=7)
    assert make_split(labelled_patients(ALL[:21]), data).digest == "6ab638d214f7"
    partly_scribbled = [
        replace(patient, scribbled=number % 3 > 0) for number, patient in enumerate(labelled_patients(ALL[:21]))
    ]
    assert make_split(partly_scribbled, data).digest == "38489bcb7c7c"


def test_the_split_seed_selects_which_patients_keep_their_scribbles() -> None:
    kept = [
        make_split(
            labelled_patients(ALL), DataConfig(split="split0", split_seed=seed, scribbled_fraction=0.5), SPLIT0
        ).scribbled
        for seed in (0, 0, 1)
    ]
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]
    assert len(kept[0]) == len(kept[2]) == 18


@pytest.mark.parametrize(("fraction", "scribbled_in_dense"), [(0.25, 0), (0.5, 2), (0.75, 4)])
def test_patients_without_scribbles_fill_the_dense_fraction_first(fraction: float, scribbled_in_dense: int) -> None:
    published = {"scribbled": ALL[:8], "shapes": ALL[8:10], "val": ALL[10:11], "test": ()}
    without_scribbles = set(ALL[:2])
    patients = [
        replace(patient, scribbled=patient.patient_id not in without_scribbles)
        for patient in labelled_patients(ALL[:11])
    ]
    data = DataConfig(split="split0", supervision="mixed", dense_fraction=fraction)
    split = make_split(patients, data, published)
    assert without_scribbles <= set(split.dense)
    assert len(set(split.dense) - without_scribbles) == scribbled_in_dense
    assert sorted((*split.dense, *split.scribbled)) == ALL[:8]


def test_val_and_test_fractions_refer_to_all_patients() -> None:
    split = make_split(labelled_patients(ALL), DataConfig(split="random", val_fraction=0.15, test_fraction=0.15))
    assert (len(split.val), len(split.test)) == (15, 15)
    declared = [replace(patient, part="val") for patient in labelled_patients(["a", "b"])]
    assert len(make_split([*labelled_patients(ALL), *declared], DataConfig(split="random")).test) == 15


def test_declared_training_patients_never_test_and_validate_only_as_last_resort() -> None:
    free, train = (
        labelled_patients(ALL[:30]),
        [replace(patient, part="train") for patient in labelled_patients(ALL[30:60])],
    )
    split = make_split([*free, *train], DataConfig(split="random", val_fraction=0.2, test_fraction=0.2))
    assert (len(split.val), len(split.test)) == (12, 12)
    assert {*split.val, *split.test} <= set(ALL[:30])
    split = make_split([*free[:4], *train], DataConfig(split="random", val_fraction=0.2, test_fraction=0.2))
    assert set(ALL[:4]) <= set(split.val)
    assert split.test == ()


def test_patients_all_declared_for_training_also_validate_but_never_test() -> None:
    patients = [replace(patient, part="train") for patient in labelled_patients(ALL[:20])]
    split = make_split(patients, DataConfig())
    assert (len(split.val), split.test) == (3, ())


def test_patients_without_masks_neither_validate_nor_test() -> None:
    parts: dict[str, Part] = {"a": "val", "b": "val", "c": "test", "d": "test"}
    declared = [replace(patient, part=parts[patient.patient_id]) for patient in labelled_patients(parts)]
    patients = [replace(patient, masked=patient.patient_id in "bd") for patient in declared]
    split = make_split([*labelled_patients(ALL[:10]), *patients], DataConfig(split="random"))
    assert (split.val, split.test) == (("b",), ("d",))


def test_foreign_shapes_leave_all_training_patients_to_supervision() -> None:
    data = DataConfig(split="random", val_fraction=0.1, test_fraction=0.1)
    split = make_split(labelled_patients(ALL[:20]), data, foreign_shapes=["other"])
    assert (len(split.scribbled), split.shapes, len(split.val), len(split.test)) == (16, ("other",), 2, 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(12, 80), st.integers(2, 6), st.integers(0, 9), st.floats(0, 0.3), st.sets(st.integers(0, 79)))
def test_every_patient_with_a_mask_validates_in_one_fold_except_common_test_patients(
    count: int, folds: int, seed: int, test: float, without_mask: set[int]
) -> None:
    patients = [
        replace(patient, masked=number not in without_mask or number < folds + 5)
        for number, patient in enumerate(labelled_patients(ALL[:count]))
    ]
    masked = {patient.patient_id for patient in patients if patient.masked}
    data = [
        DataConfig(split_seed=seed, folds=folds, fold=fold, val_fraction=0.01, test_fraction=test)
        for fold in range(1, folds + 1)
    ]
    # Test patients may leave too few with a mask for the folds.
    assume(len(masked) - round(test * count) >= folds)
    splits = [make_split(patients, each) for each in data]
    assert len({split.test for split in splits}) == 1
    assert sorted(patient for split in splits for patient in split.val) == sorted(masked - set(splits[0].test))
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for number, split in enumerate(splits, start=1):
        assert split.scheme == f"random-{seed}-fold-{number}-of-{folds}"
        assert sorted(patient for part in PARTS for patient in getattr(split, part)) == ALL[:count]


def test_a_cross_validation_replaces_the_published_split() -> None:
    split = make_split(labelled_patients(ALL), DataConfig(folds=5, fold=2), SPLIT0)
    assert split.scheme == "random-0-fold-2-of-5"
    assert (len(split.test), len(split.val)) == (15, 17)


def test_patients_assigned_to_training_validate_in_one_fold_each() -> None:
    patients = [replace(patient, part="train") for patient in labelled_patients(ALL[:10])]
    splits = [make_split(patients, DataConfig(folds=3, fold=fold)) for fold in (1, 2, 3)]
    assert sorted(patient for split in splits for patient in split.val) == ALL[:10]
    assert {split.test for split in splits} == {()}


def test_folds_are_refused_where_the_data_set_assigns_validation_patients() -> None:
    patients = [*labelled_patients(ALL[:10]), Patient(patient_id="v", scribbled=True, masked=True, part="val")]
    with pytest.raises(SplitError, match=r"data\.folds=5: the data set assigns 1 patients to validation, .* is v;"):
        make_split(patients, DataConfig(folds=5))


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(SplitError, match=r"data\.folds=5: only 4 patients with a mask can validate"):
        make_split(labelled_patients(ALL[:4]), DataConfig(folds=5, test_fraction=0))


@pytest.mark.parametrize("scribbled", [False, True])
def test_dense_supervision_leaves_as_many_patients_for_shapes(scribbled: bool) -> None:
    patients = [replace(patient, scribbled=scribbled) for patient in labelled_patients(ALL[:20])]
    data = DataConfig(split="random", supervision="dense", val_fraction=0.1, test_fraction=0.1)
    split = make_split(patients, data)
    assert (len(split.dense), len(split.shapes), split.scribbled) == (8, 8, ())


def test_patients_without_masks_are_unlabelled_in_dense_supervision() -> None:
    patients = [replace(patient, masked=patient.patient_id not in ALL[:5]) for patient in labelled_patients(ALL[:20])]
    split = make_split(patients, DataConfig(split="random", supervision="dense"))
    assert split.unlabelled == tuple(ALL[:5])


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(SplitError, match="1 patients, 1 with masks: after 1 for validation"):
        make_split(labelled_patients("a"), DataConfig(split="random"))


def test_validation_without_masks_is_refused() -> None:
    patients = [replace(patient, masked=False) for patient in labelled_patients(ALL[:9])]
    with pytest.raises(SplitError, match="9 patients, 0 with masks: after 0 for validation"):
        make_split(patients, DataConfig())
