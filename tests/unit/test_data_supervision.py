"""What each kind of supervision teaches, and what it refuses before training."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.data.catalog import write_phantom
from maag.data.datasets.acdc import SPLIT0
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.shapes import prepare_shapes
from maag.data.slices.store import SliceStore
from maag.data.slices.supervision import Supervision, supervise, without_effect
from maag.data.split_making import make_split
from maag.data.splits import PARTS, Patient, Split
from maag.errors import ConfigError, DataError, SplitError
from maag.labels import IGNORE
from maag.losses import partial_cross_entropy
from maag.train.state import TrainState
from maag.train.step import update

CPU = torch.device("cpu")
PEOPLE = [Patient(patient_id=f"patient{n:03}", scribbled=True, masked=True) for n in range(1, 101)]


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    return codec.override(config, changes)


def supervised(prepared: PreparedData, config: Config) -> tuple[Split, Supervision]:
    split = make_split(prepared.patients, config.data, SPLIT0)
    return split, supervise(prepared, split, config)


@pytest.mark.parametrize(("fraction", "kept"), [(0.05, 2), (0.1, 4), (0.2, 7), (0.5, 18), (1.0, 35)])
def test_semi_keeps_a_part_of_the_scribbles_and_the_images_of_all(
    tiny_config: Config, fraction: float, kept: int
) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": fraction, "loss.adversarial_unlabelled": 0.2}
    data = with_changes(tiny_config, changes).data
    split = make_split(PEOPLE, data, SPLIT0)
    assert (len(split.scribbled), len(split.unlabelled), len(split.shapes)) == (kept, 35 - kept, 35)
    weak = make_split(PEOPLE, with_changes(tiny_config, {"data.scribbled_fraction": fraction}).data, SPLIT0)
    assert (weak.scribbled, weak.unlabelled) == (split.scribbled, ())


def test_a_greater_fraction_holds_the_smaller_one(tiny_config: Config) -> None:
    chosen = [
        set(make_split(PEOPLE, with_changes(tiny_config, {"data.scribbled_fraction": part}).data, SPLIT0).scribbled)
        for part in (0.1, 0.3, 0.9)
    ]
    assert chosen[0] < chosen[1] < chosen[2]


def test_mixed_and_dense_and_fewer_shapes(tiny_config: Config) -> None:
    mixed = make_split(
        PEOPLE,
        with_changes(
            tiny_config, {"data.supervision": "mixed", "data.dense_fraction": 0.2, "data.shapes_fraction": 0.4}
        ).data,
        SPLIT0,
    )
    assert (len(mixed.dense), len(mixed.scribbled), len(mixed.shapes)) == (7, 28, 14)
    dense = make_split(PEOPLE, with_changes(tiny_config, {"data.supervision": "dense"}).data, SPLIT0)
    assert (len(dense.dense), dense.scribbled) == (35, ())


def test_a_fraction_that_leaves_nobody_is_named(tiny_config: Config) -> None:
    data = with_changes(tiny_config, {"data.scribbled_fraction": 0.01}).data
    with pytest.raises(SplitError, match=r"data\.scribbled_fraction=0\.01 of 35 patients leaves none; .* least 0\.029"):
        make_split(PEOPLE, data, SPLIT0)
    data = with_changes(tiny_config, {"data.supervision": "mixed", "data.dense_fraction": 0.999}).data
    with pytest.raises(SplitError, match=r"data\.dense_fraction=0\.999 of 35 patients leaves none with scribbles"):
        make_split(PEOPLE, data, SPLIT0)


def test_semi_without_an_adversarial_branch_is_refused(tiny_config: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.supervision=semi needs loss\.adversarial_unlabelled above 0, .* or loss\.teacher"
    ):
        with_changes(tiny_config, {"data.supervision": "semi"})


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
    split = make_split(people, with_changes(tiny_config, {"data.supervision": supervision}).data, None, foreign)
    assert {part: len(getattr(split, part)) for part in PARTS if getattr(split, part)} == {**found, "val": 1, "test": 1}
    known = {patient.patient_id: patient for patient in people}
    assert all(known[patient].masked for patient in split.dense)
    assert all(known[patient].scribbled for patient in split.scribbled)


def test_labels_that_supervision_needs_are_named(tiny_config: Config) -> None:
    mixed = with_changes(tiny_config, {"data.supervision": "mixed"}).data
    with pytest.raises(SplitError, match=r"mixed: none of the 0 .* has scribbles; add some, or use .*=dense"):
        make_split(people_with(masks_alone=5), mixed)
    with pytest.raises(SplitError, match=r"mixed: none of the 5 .* has a mask; add some, or use data.supervision=weak"):
        make_split(people_with(scribbles_alone=5), mixed)
    dense = with_changes(tiny_config, {"data.supervision": "dense"}).data
    with pytest.raises(SplitError, match=r"0 are left to train on; validation needs .* with a mask and training anoth"):
        make_split(people_with(scribbles_alone=5), dense)


def test_masks_alone_train_when_dense(tiny_config: Config, prepared: PreparedData) -> None:
    bare = replace(prepared, cases=tuple(replace(case, raters=()) for case in prepared.cases))
    config = with_changes(tiny_config, {"data.supervision": "dense", "data.split": "random"})
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
    data = with_changes(tiny_config, {"data.split": "random"}).data
    split = make_split(prepared.patients, data, SPLIT0, foreign)
    assert split.shapes == foreign
    assert len(split.scribbled) == 4
    write_phantom("acdc", tmp_path / "other", 4, seed=5)
    other = prepare_shapes("acdc", tmp_path / "other", tiny_config.data, tmp_path / "cache")
    found = supervise(prepared, split, tiny_config, other)
    assert len(found.real) == len(other.masks)


def test_a_batch_is_a_function_of_its_step(tiny_config: Config, prepared: PreparedData) -> None:
    config = with_changes(tiny_config, {"loss.adversarial_unlabelled": 0.1})
    _, supervision = supervised(prepared, config)
    one, other = (TrainingBatches(supervision, config, CPU) for _ in range(2))
    other.at(3)
    for left, right in zip(one.at(7), other.at(7), strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    assert not torch.equal(one.at(7).images, one.at(8).images)
    reseeded = TrainingBatches(supervision, with_changes(config, {"train.seed": 5}), CPU)
    assert not torch.equal(one.at(7).images, reseeded.at(7).images)


def still(config: Config, changes: Mapping[str, Any]) -> Config:
    """Without augmentation, so that slices can be recognised."""
    names = ("rotation_deg", "translation", "scale", "flip", "brightness", "contrast", "noise")
    return with_changes(config, {**{f"augment.{name}": 0 for name in names}, **changes})


def seen(batches: TrainingBatches, prepared: PreparedData, steps: range) -> list[int]:
    places = {prepared.images[place].tobytes(): place for place in range(len(prepared.images))}
    return [places[image.numpy().tobytes()] for step in steps for image in batches.at(step).images]


def test_a_pass_sees_each_slice_once(tiny_config: Config, prepared: PreparedData) -> None:
    config = still(tiny_config, {"optim.batch_size": 1})
    _, supervision = supervised(prepared, config)
    batches = TrainingBatches(supervision, config, CPU)
    count = len(supervision.scribbled)
    assert batches.steps_per_epoch == count
    first, second = (seen(batches, prepared, range(turn * count, (turn + 1) * count)) for turn in (0, 1))
    assert sorted(first) == sorted(second) == supervision.scribbled.tolist()
    assert first != second


def test_mixed_batches_hold_scribbles_then_masks(tiny_config: Config, prepared: PreparedData) -> None:
    changes = {"data.supervision": "mixed", "data.dense_fraction": 0.5, "optim.dense_ratio": 0.25}
    config = still(tiny_config, {**changes, "optim.batch_size": 8})
    split, supervision = supervised(prepared, config)
    assert len(split.dense) == len(split.scribbled) == 1
    batches = TrainingBatches(supervision, config, CPU)
    batch = batches.at(0)
    assert batch.num_dense == 2
    drawn = seen(batches, prepared, range(1))
    assert set(drawn[:6]) <= set(supervision.scribbled)
    assert set(drawn[6:]) <= set(supervision.dense)
    np.testing.assert_array_equal(batch.labels[:6], prepared.scribbles[drawn[:6], 0])
    np.testing.assert_array_equal(batch.labels[6:], prepared.masks[drawn[6:]])
    losses = update(TrainState(config, CPU), batch, config)
    assert set(losses) == {"supervised", "scribbles", "dense", "adversarial", "discriminator"}
    twice = with_changes(config, {"loss.dense": 3.0, "loss.supervised": 2.0})
    weighted = update(TrainState(twice, CPU), batch, twice)
    assert float(weighted["supervised"]) == pytest.approx(2 * float(losses["scribbles"]) + 3 * float(losses["dense"]))


def test_unlabelled_patients_are_seen_by_the_adversarial_term_alone(
    tiny_config: Config, prepared: PreparedData
) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": 0.5, "loss.adversarial_unlabelled": 0.2}
    config = still(tiny_config, {**changes, "optim.batch_size": 1})
    _, supervision = supervised(prepared, config)
    assert len(supervision.unlabelled)
    batches = TrainingBatches(supervision, config, CPU)
    total = len(supervision.scribbled) + len(supervision.unlabelled)
    assert set(seen(batches, prepared, range(total))) == set(supervision.scribbled)
    images = {prepared.images[place].tobytes() for place in supervision.unlabelled}
    unlabelled = [batches.at(step).unlabelled for step in range(total)]
    assert images <= {image[0].numpy().tobytes() for image in unlabelled if image is not None}


def test_a_teacher_alone_sees_unlabelled_patients_in_a_second_batch(
    tiny_config: Config, prepared: PreparedData
) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": 0.5, "loss.adversarial_unlabelled": 0}
    taught = {**changes, "loss.teacher": 1.0, "teacher.decay": 0.9, "teacher.confidence": 0.1, "optim.batch_size": 1}
    config = still(tiny_config, taught)
    _, supervision = supervised(prepared, config)
    batches = TrainingBatches(supervision, config, CPU)
    batch_images = [batches.at(step).unlabelled for step in range(len(supervision.unlabelled))]
    seen_images = {image[0].numpy().tobytes() for image in batch_images if image is not None}
    assert seen_images == {prepared.images[place].tobytes() for place in supervision.unlabelled}
    losses = update(TrainState(config, CPU), batches.at(0), config)
    assert losses["teacher"] > 0
    # Where there are none, steps cost no more than they did.
    everyone = still(tiny_config, {**taught, "data.supervision": "weak", "data.scribbled_fraction": 1.0})
    assert TrainingBatches(supervised(prepared, everyone)[1], everyone, CPU).at(0).unlabelled is None


def test_settings_that_change_nothing_are_named(tiny_config: Config) -> None:
    semi = with_changes(tiny_config, {"data.supervision": "semi", "loss.adversarial_unlabelled": 0.2})
    some = with_changes(semi, {"data.scribbled_fraction": 0.5})
    weights = with_changes(tiny_config, {"data.rater_weights": [1, 2]})
    weighted = with_changes(weights, {"data.raters": "weighted"})

    def told(config: Config, *raters: str) -> list[str]:
        return without_effect(config, make_split(PEOPLE, config.data, SPLIT0), raters)

    assert "no patient is unlabelled; lower data.scribbled_fraction" in told(semi, "a")[0]
    assert "only weighted uses them" in told(weights, "a", "b")[0]
    assert "there is one rater alone" in told(weighted, "a")[0]
    assert not told(some, "a") + told(weighted, "a", "b") + told(tiny_config, "a")


@pytest.fixture(scope="module")
def of_three_raters(phantom_dir: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    sources = ("own", "simulated:curve", "simulated:skeleton-dilated")
    return prepare(phantom_dir, tiny_config.data, tmp_path_factory.mktemp("raters"), sources)


def test_raters_are_combined_and_their_weights_reach_the_loss(
    tiny_config: Config, of_three_raters: PreparedData
) -> None:
    assert of_three_raters.scribbles.shape[1] == 3
    one = supervised(of_three_raters, tiny_config)[1]
    assert one.scribble_weights is None
    assert [item.rater for item in one.agreement] == list(of_three_raters.raters)
    assert all((item.agreement or 0) > 0.5 for item in one.agreement)
    drawn = (one.scribbles != IGNORE).mean()
    assert drawn > (of_three_raters.scribbles[:, 0] != IGNORE).mean()

    given = still(tiny_config, {"data.raters": "weighted", "data.rater_weights": [1.0, 0.5, 0.25]})
    weighted = supervised(of_three_raters, given)[1]
    assert weighted.scribble_weights is not None
    batch = TrainingBatches(weighted, given, CPU).at(0)
    assert batch.label_weights is not None
    labelled = batch.labels != IGNORE
    assert {round(float(value), 2) for value in batch.label_weights[labelled].unique()} >= {0.25, 0.5, 1.0}


def test_pixel_weights_count_as_pixels_do() -> None:
    logits = torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[0, 1, 1, IGNORE]]], dtype=torch.uint8)
    whole = torch.ones(1, 1, 4)
    for class_weights in (0.0, 0.5, 1.0):
        plain = partial_cross_entropy(logits, labels, class_weights=class_weights)
        same = partial_cross_entropy(logits, labels, class_weights=class_weights, pixel_weights=whole)
        half = partial_cross_entropy(logits, labels, class_weights=class_weights, pixel_weights=0.5 * whole)
        assert float(plain) == pytest.approx(float(same)) == pytest.approx(float(half))
        without = torch.tensor([[[1.0, 1.0, 0.0, 1.0]]])
        left_out = labels.clone()
        left_out[0, 0, 2] = IGNORE
        assert float(
            partial_cross_entropy(logits, labels, class_weights=class_weights, pixel_weights=without)
        ) == pytest.approx(float(partial_cross_entropy(logits, left_out, class_weights=class_weights)))


def test_a_rater_upside_down_is_refused_before_training(tiny_config: Config, of_three_raters: PreparedData) -> None:
    wrong = np.array(of_three_raters.scribbles)
    last = wrong[:, 2]
    last[last != IGNORE] = (last[last != IGNORE] + 1) % 4
    broken = replace(of_three_raters, scribbles=wrong)
    with pytest.raises(DataError, match="less than chance"):
        supervised(broken, tiny_config)


def test_raters_are_compared_on_the_strokes_of_those_who_train_without_the_padding_around_them(
    tiny_config: Config, of_three_raters: PreparedData
) -> None:
    small = tuple(
        replace(case, source_shape=(case.source_shape[0], 20, 24), spacing_mm=(case.spacing_mm[0], 4.0, 4.0))
        for case in of_three_raters.cases
    )
    in_padding = replace(of_three_raters, cases=small)
    split = make_split(in_padding.patients, tiny_config.data)
    one, *others = split.scribbled
    assert others
    found = supervise(in_padding, replace(split, scribbled=(one,), unlabelled=tuple(others)), tiny_config)
    images = in_padding.scribbles[in_padding.slices_of([one])][..., 6:26, 4:28]
    assert [item.drawn for item in found.agreement] == (images != IGNORE).sum(axis=(0, 2, 3)).tolist()


def test_a_class_that_nobody_draws_is_named(tiny_config: Config, prepared: PreparedData) -> None:
    scribbles = np.array(prepared.scribbles)
    scribbles[scribbles == 2] = IGNORE
    with pytest.raises(SplitError, match="no training patient has a stroke of class MYO"):
        supervised(replace(prepared, scribbles=scribbles), tiny_config)


def test_slices_from_a_file_are_those_on_the_device() -> None:
    array = np.random.default_rng(0).random((20, 3, 4)).astype(np.float32)
    indices = np.array([7, 3, 3, 19])
    from_file, resident = (SliceStore(array, CPU, resident=resident).gather(indices) for resident in (False, True))
    assert torch.equal(from_file, resident)
    assert torch.equal(resident, torch.from_numpy(array[indices]))


def test_slices_on_the_device_do_not_stay_in_memory_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "to", lambda values, *_, **__: values.clone())
    array = np.zeros((20, 3, 4), np.float32)
    store, held = SliceStore(array, CPU, resident=True), weakref.ref(array)
    del array
    assert held() is None
    assert store.gather(np.arange(2)).shape == (2, 3, 4)
