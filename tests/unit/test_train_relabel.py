"""Labels for a second stage: where the model is sure, under what was drawn, of training patients alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maag.config import codec
from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.cache import prepare
from maag.data.case_arrays import read_case
from maag.data.cases import Case
from maag.data.catalog import find_cases, preset, reader_of, write_phantom
from maag.data.label_files import load_label_file
from maag.data.split_making import make_split
from maag.data.splits import Split
from maag.data.supervision import supervise
from maag.data.volume import Volume
from maag.errors import DataError, SplitError, StorageError
from maag.inference import Segmentation, likeliest
from maag.labels import IGNORE
from maag.train.second_stage.coverage import CoverageTally
from maag.train.second_stage.relabel import Labeller, RelabelReport, choose_cases, drawn_by_hand, relabel
from maag.train.second_stage.sure_labels import label_volume, normalised_entropy, sure_labels

Images = NDArray[np.float32]
LABELLER = Labeller(model="runs/one", model_digest="0123", entropy=0.1)


class Runner:
    """Says background everywhere, with one probability."""

    name = "all background"

    def __init__(self, num_classes: int, probability: float = 0.999, fails_at: int | None = None) -> None:
        self.num_classes, self.probability, self.fails_at = num_classes, probability, fails_at
        self.calls = 0

    def __call__(self, images: Images) -> Images:
        self.calls += 1
        if self.calls == self.fails_at:
            raise DataError("this case cannot be segmented")
        rest = (1 - self.probability) / (self.num_classes - 1)
        found = np.full((len(images), self.num_classes, *images.shape[2:]), rest, np.float32)
        found[:, 0] = self.probability
        return found


def certain(labels: NDArray[np.uint8], num_classes: int, probability: float = 0.999) -> Segmentation:
    """A segmentation that gives `labels` (Z, Y, X) that probability."""
    probabilities = np.full((len(labels), num_classes, *labels.shape[1:]), (1 - probability) / (num_classes - 1))
    np.put_along_axis(probabilities, labels[:, None].astype(int), probability, axis=1)
    return Segmentation(labels, probabilities.astype(np.float32), {})


def test_entropy_is_a_part_of_the_largest_possible_one() -> None:
    probabilities = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]], np.float32)[:, :, None, None]
    np.testing.assert_allclose(normalised_entropy(probabilities).ravel(), [0, 1, 0.5], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_a_higher_limit_only_adds_labels_and_all_are_the_likeliest(seed: int, low: float, high: float) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.3] * 3, size=(2, 6, 5)).transpose(0, 3, 1, 2).astype(np.float32)
    found = Segmentation(likeliest(probabilities), probabilities, {})
    fewer, more = (sure_labels(found, 3, limit) for limit in sorted((low, high)))
    for labels in (fewer, more):
        assert (labels == found.labels)[labels != IGNORE].all()
    assert (more == fewer)[fewer != IGNORE].all()
    unsure = normalised_entropy(probabilities) >= max(low, high)
    assert (more[unsure] == IGNORE).all()


def test_what_is_beside_a_structures_largest_part_is_unknown_and_not_background() -> None:
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[:, 1:4, 1:4] = 1
    labels[1, 6, 6:8] = 1
    labels[0, 6, 0] = 2
    expected = labels.copy()
    expected[1, 6, 6:8] = IGNORE
    np.testing.assert_array_equal(sure_labels(certain(labels, 3), 3, 0.1), expected)


def test_sure_parts_hang_together_by_unsure_voxels() -> None:
    labels = np.zeros((1, 3, 9), np.uint8)
    labels[0, 1, 1:8] = 1
    found = certain(labels, 2)
    assert found.probabilities is not None
    found.probabilities[0, :, 1, 4] = (0.4, 0.6)
    expected = labels.copy()
    expected[0, 1, 4] = IGNORE
    np.testing.assert_array_equal(sure_labels(found, 2, 0.1), expected)


def test_what_is_drawn_stays_and_where_the_model_was_not_asked_nothing_is_known() -> None:
    data = DataConfig(classes=("background", "blob"), unlabelled_value=2, size_px=(16, 16), spacing_mm=1.0)
    volume = Volume(np.random.default_rng(0).normal(size=(1, 2, 20, 24)).astype(np.float32), (5, 1, 1), np.eye(4))
    drawn = np.full(volume.shape, IGNORE, np.uint8)
    drawn[0, 10, 10:14] = 1  # against the model
    drawn[1, 0, 0] = 1  # out of its sight
    expected = np.full(volume.shape, IGNORE, np.uint8)
    expected[:, 2:18, 4:20] = 0
    expected[drawn == 1] = 1
    np.testing.assert_array_equal(label_volume(volume, drawn, Runner(2), data, 0.1), expected)
    np.testing.assert_array_equal(label_volume(volume, drawn, Runner(2, probability=0.7), data, 0.1), drawn)


def test_coverage_counts_pixels_and_compares_where_there_is_a_mask() -> None:
    tally = CoverageTally(3)
    tally.add(np.array([[[1, 1, 1, IGNORE]]], np.uint8), np.array([[[0, 1, 0, 1]]], np.uint8))
    tally.add(np.array([[[1, IGNORE, IGNORE, IGNORE]]], np.uint8), None)
    one, nowhere = tally.of(1), tally.of(2)
    assert (one.percent, one.correct_percent, one.reached_percent) == (50.0, pytest.approx(100 / 3), 50.0)
    assert (nowhere.percent, nowhere.correct_percent, nowhere.reached_percent) == (0.0, None, None)


@pytest.fixture
def cases(phantom_dir: Path, tiny_config: Config) -> tuple[Case, ...]:
    return find_cases(tiny_config.data, phantom_dir)


@pytest.fixture
def write(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> Callable[..., tuple[Path, RelabelReport]]:
    def label(data: DataConfig = tiny_config.data, cases: Sequence[Case] = cases) -> tuple[Path, RelabelReport]:
        report = relabel(choose_cases(cases, split), Runner(data.num_classes), data, LABELLER, tmp_path / "out")
        return tmp_path / "out", report

    return label


def test_training_cases_alone_are_written_and_strokes_stay(
    write: Callable[..., tuple[Path, RelabelReport]], cases: tuple[Case, ...], split: Split, tiny_config: Config
) -> None:
    out, report = write()
    mine = [case for case in cases if case.patient_id in split.scribbled]
    assert {path.name for path in out.iterdir()} == {
        *(f"{case.case_id}_scribble.nii.gz" for case in mine), "split.json", "relabelling.json",
    }  # fmt: skip
    assert not {case.patient_id for case in mine} & {*split.val, *split.test, *split.shapes}
    for case in mine:
        drawn = read_case(case, reader_of("acdc"), tiny_config.data).scribbles["expert"]
        labels = load_label_file(out / f"{case.case_id}_scribble.nii.gz", range(5))
        np.testing.assert_array_equal(labels[drawn != IGNORE], drawn[drawn != IGNORE])
        assert set(np.unique(labels[drawn == IGNORE])) <= {0, 4}
    assert Split.from_dict(json.loads((out / "split.json").read_text())) == split
    assert json.loads((out / "relabelling.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    assert (report.num_patients, report.num_cases, report.num_cases_with_mask) == (2, 4, 4)
    background, *structures = report.classes
    assert background.labelled.percent > 40 > 2 > background.drawn.percent
    assert all(item.labelled == item.drawn for item in structures)
    assert all((item.drawn.correct_percent or 0) > 90 for item in structures)


@pytest.mark.parametrize(("value", "written"), [(9, 9), (None, 4)])
def test_unlabelled_pixels_have_the_value_of_the_settings(
    write: Callable[..., tuple[Path, RelabelReport]],
    phantom_dir: Path,
    tiny_config: Config,
    value: int | None,
    written: int,
) -> None:
    # A grid so small that most of an image is out of sight.
    data = replace(tiny_config.data, unlabelled_value=value, spacing_mm=1.0)
    out, report = write(data, find_cases(data, phantom_dir, ["simulated:random-walk"]))
    labels = load_label_file(next(out.glob("*_scribble.nii.gz")), range(256))
    assert written in np.unique(labels)
    assert labels.max() == report.unlabelled_value == written


def test_a_folder_with_something_in_it_is_refused(
    write: Callable[..., tuple[Path, RelabelReport]], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    write()
    with pytest.raises(StorageError, match="out: it is there and not empty; choose a new folder"):
        write()


def test_nothing_is_left_of_half_the_work(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    failing = Runner(4, fails_at=2)
    with pytest.raises(DataError, match="cannot be segmented"):
        relabel(choose_cases(cases, split), failing, tiny_config.data, LABELLER, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_could_not_train_is_named(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    semi = replace(split, scribbled=split.scribbled[:1], unlabelled=split.scribbled[1:])
    training = choose_cases(cases, semi, with_unlabelled=True)
    with pytest.raises(DataError, match=rf"case {semi.unlabelled[0]}_frame01: .* nowhere sure of background"):
        relabel(training, Runner(4, probability=0.5), tiny_config.data, LABELLER, tmp_path / "out")


def test_unlabelled_patients_are_labelled_on_request_without_their_scribbles(
    cases: tuple[Case, ...], split: Split
) -> None:
    semi = replace(split, scribbled=split.scribbled[:1], unlabelled=split.scribbled[1:])
    plain = choose_cases(cases, semi)
    assert {case.patient_id for case in plain.cases} == set(semi.scribbled)
    assert plain.split == semi
    more = choose_cases(cases, semi, with_unlabelled=True)
    assert {case.patient_id for case in more.cases} == {*semi.scribbled, *semi.unlabelled}
    assert all(bool(case.scribbles) == (case.patient_id in semi.scribbled) for case in more.cases)
    assert (more.split.scribbled, more.split.unlabelled) == (split.scribbled, ())
    assert (more.split.val, more.split.test, more.split.shapes) == (split.val, split.test, split.shapes)


def test_what_cannot_be_labelled_is_said(cases: tuple[Case, ...], split: Split, phantom_dir: Path) -> None:
    with pytest.raises(SplitError, match="no patient trains with scribbles"):
        choose_cases(cases, replace(split, scribbled=(), dense=split.scribbled))
    with pytest.raises(SplitError, match="1 of its training patients are not in the data, the first is patient999"):
        choose_cases(cases, replace(split, scribbled=(*split.scribbled, "patient999")))
    bare = [replace(case, scribbles=()) for case in cases]
    with pytest.raises(SplitError, match="none of its 2 training patients has scribbles here; say with --scribbles"):
        choose_cases(bare, split)


def test_several_raters_are_combined_as_in_training(phantom_dir: Path, tiny_config: Config, split: Split) -> None:
    cases = find_cases(tiny_config.data, phantom_dir, ["own", "simulated:curve"])
    training = choose_cases(cases, split)
    assert training.raters == ("expert", "simulated:curve")
    arrays = read_case(training.cases[0], reader_of("acdc"), tiny_config.data)
    expert, curve = (arrays.scribbles[rater] for rater in training.raters)
    drawn = drawn_by_hand(arrays, training.raters, tiny_config.data)
    only = (curve == IGNORE) & (expert != IGNORE)
    np.testing.assert_array_equal(drawn[only], expert[only])
    assert (drawn[(curve != IGNORE) & (expert != IGNORE) & (curve != expert)] == IGNORE).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["majority", "weighted"])
def test_raters_who_vote_are_written_as_well(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path, method: str
) -> None:
    config = codec.override(tiny_config, {"data.raters": method})
    cases = find_cases(config.data, phantom_dir, ["own", "simulated:skeleton-dilated"])
    report = relabel(choose_cases(cases, split), Runner(4), config.data, LABELLER, tmp_path / "out")
    assert all(item.drawn.percent > 0 for item in report.classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chaos", "lvsc", "ppss", "nnunet"])
def test_the_folder_supervises_the_same_patients_whatever_the_layout(name: str, tmp_path: Path) -> None:
    write_phantom(name, tmp_path / "data", 5, seed=0)
    config = codec.override(preset(name, "fast", tmp_path / "data"), {"data.size_px": [32, 32], "data.spacing_mm": 6})
    first = prepare(tmp_path / "data", config.data, tmp_path / "cache")
    split = make_split(first.patients, config.data)
    training = choose_cases(find_cases(config.data, tmp_path / "data"), split)
    relabel(training, Runner(config.data.num_classes), config.data, LABELLER, tmp_path / "out")
    second = prepare(tmp_path / "data", config.data, tmp_path / "cache", [str(tmp_path / "out")])
    assert make_split(second.patients, config.data) == split
    supervision = supervise(second, split, config)
    labels = supervision.scribbles[supervision.scribbled]
    assert (labels != IGNORE).mean() > (first.scribbles[supervision.scribbled, 0] != IGNORE).mean()
