"""Labels for a second stage: confident predictions beneath the annotations, of training patients only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from background_runner import BackgroundRunner
from numpy.typing import NDArray

from maag.config import codec
from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.cache.case_arrays import read_case
from maag.data.cache.preparing import prepare
from maag.data.cases import Case
from maag.data.catalog import find_cases, preset, reader_of, write_phantom
from maag.data.files.label_files import load_label_file
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.data.splits import Split
from maag.errors import DataError, SplitError, StorageError
from maag.labels import IGNORE
from maag.train.second_stage.relabel import Labeller, RelabelReport, drawn_by_hand, relabel
from maag.train.second_stage.training_cases import choose_cases

LABELLER = Labeller(model="runs/one", model_digest="0123", entropy=0.1)


class FailsOnSecondVolume(BackgroundRunner):
    """Finds nothing in the first volume, and fails on the second."""

    calls = 0

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == 2:
            raise DataError("this case cannot be segmented")
        return super().__call__(images)


@pytest.fixture
def cases(phantom_dir: Path, tiny_config: Config) -> tuple[Case, ...]:
    return find_cases(tiny_config.data, phantom_dir)


@pytest.fixture
def write(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> Callable[..., tuple[Path, RelabelReport]]:
    def label(data: DataConfig = tiny_config.data, cases: Sequence[Case] = cases) -> tuple[Path, RelabelReport]:
        report = relabel(
            choose_cases(cases, split), BackgroundRunner(data.num_classes), data, LABELLER, tmp_path / "out"
        )
        return tmp_path / "out", report

    return label


def test_only_training_cases_are_written_and_scribbles_are_kept(
    write: Callable[..., tuple[Path, RelabelReport]], cases: tuple[Case, ...], split: Split, tiny_config: Config
) -> None:
    out, report = write()
    training_cases = [case for case in cases if case.patient_id in split.scribbled]
    assert {path.name for path in out.iterdir()} == {
        *(f"{case.case_id}_scribble.nii.gz" for case in training_cases), "split.json", "relabelling.json",
    }  # fmt: skip
    assert not {case.patient_id for case in training_cases} & {*split.val, *split.test, *split.shapes}
    for case in training_cases:
        scribbles = read_case(case, reader_of("acdc"), tiny_config.data).scribbles["expert"]
        labels = load_label_file(out / f"{case.case_id}_scribble.nii.gz", range(5))
        np.testing.assert_array_equal(labels[scribbles != IGNORE], scribbles[scribbles != IGNORE])
        assert set(np.unique(labels[scribbles == IGNORE])) <= {0, 4}
    assert Split.from_dict(json.loads((out / "split.json").read_text())) == split
    assert json.loads((out / "relabelling.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    assert (report.num_patients, report.num_cases, report.num_cases_with_mask) == (2, 4, 4)
    background, *structures = report.classes
    assert background.labelled.percent > 40 > 2 > background.drawn.percent
    assert all(item.labelled == item.drawn for item in structures)
    assert all((item.drawn.correct_percent or 0) > 90 for item in structures)


@pytest.mark.parametrize(("value", "written"), [(9, 9), (None, 4)])
def test_unlabelled_pixels_get_the_configured_value(
    write: Callable[..., tuple[Path, RelabelReport]],
    phantom_dir: Path,
    tiny_config: Config,
    value: int | None,
    written: int,
) -> None:
    # A grid so small that most of an image is outside it.
    data = replace(tiny_config.data, unlabelled_value=value, spacing_mm=1.0)
    out, report = write(data, find_cases(data, phantom_dir, ["simulated:skeleton"]))
    labels = load_label_file(next(out.glob("*_scribble.nii.gz")), range(256))
    assert written in np.unique(labels)
    assert labels.max() == report.unlabelled_value == written


def test_a_non_empty_output_folder_is_refused(write: Callable[..., tuple[Path, RelabelReport]], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write()
    with pytest.raises(StorageError, match="out: it exists and is not empty; choose a new folder"):
        write()


def test_a_failed_relabelling_leaves_no_files(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    failing = FailsOnSecondVolume(4)
    with pytest.raises(DataError, match="cannot be segmented"):
        relabel(choose_cases(cases, split), failing, tiny_config.data, LABELLER, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_case_without_confident_background_is_refused(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    semi = replace(split, scribbled=split.scribbled[:1], unlabelled=split.scribbled[1:])
    training = choose_cases(cases, semi, with_unlabelled=True)
    with pytest.raises(DataError, match=rf"case {semi.unlabelled[0]}_frame01: .* nowhere sure of background"):
        relabel(training, BackgroundRunner(4, probability=0.5), tiny_config.data, LABELLER, tmp_path / "out")


def test_unlabelled_patients_are_labelled_only_on_request_and_without_scribbles(
    cases: tuple[Case, ...], split: Split
) -> None:
    semi = replace(split, scribbled=split.scribbled[:1], unlabelled=split.scribbled[1:])
    plain = choose_cases(cases, semi)
    assert {case.patient_id for case in plain.cases} == set(semi.scribbled)
    assert plain.split == semi
    without = [case for case in cases if case.patient_id not in semi.unlabelled]
    assert choose_cases(without, semi) == plain
    with pytest.raises(SplitError, match="1 of its training patients are not in the data"):
        choose_cases(without, semi, with_unlabelled=True)
    more = choose_cases(cases, semi, with_unlabelled=True)
    assert {case.patient_id for case in more.cases} == {*semi.scribbled, *semi.unlabelled}
    assert all(bool(case.scribbles) == (case.patient_id in semi.scribbled) for case in more.cases)
    assert (more.split.scribbled, more.split.unlabelled) == (split.scribbled, ())
    assert (more.split.val, more.split.test, more.split.shapes) == (split.val, split.test, split.shapes)


def test_an_unannotated_frame_is_labelled_only_on_request(cases: tuple[Case, ...], split: Split) -> None:
    unannotated = next(case for case in cases if case.patient_id == split.scribbled[0])
    partly_annotated = [replace(case, scribbles=()) if case == unannotated else case for case in cases]
    plain = choose_cases(partly_annotated, split)
    assert {case.patient_id for case in plain.cases} == set(split.scribbled)
    assert unannotated.case_id not in {case.case_id for case in plain.cases}
    assert plain.split == split
    more = choose_cases(partly_annotated, split, with_unlabelled=True)
    assert {case.case_id for case in more.cases} == {unannotated.case_id, *(case.case_id for case in plain.cases)}
    assert (more.split.scribbled, more.split.relabelled) == (split.scribbled, True)


def test_splits_without_scribbles_or_with_missing_patients_are_refused(
    cases: tuple[Case, ...], split: Split, phantom_dir: Path
) -> None:
    with pytest.raises(SplitError, match="no patient trains with scribbles"):
        choose_cases(cases, replace(split, scribbled=(), dense=split.scribbled))
    with pytest.raises(SplitError, match="1 of its training patients are not in the data, the first is patient999"):
        choose_cases(cases, replace(split, scribbled=(*split.scribbled, "patient999")))
    unannotated = [replace(case, scribbles=()) for case in cases]
    with pytest.raises(SplitError, match=r"none of its 2 training patients has scribbles here; give .* --scribbles"):
        choose_cases(unannotated, split)


def test_several_raters_are_combined_as_in_training(phantom_dir: Path, tiny_config: Config, split: Split) -> None:
    cases = find_cases(tiny_config.data, phantom_dir, ["own", "simulated:curve"])
    training = choose_cases(cases, split)
    assert training.raters == ("expert", "simulated:curve")
    arrays = read_case(training.cases[0], reader_of("acdc"), tiny_config.data)
    expert, curve = (arrays.scribbles[rater] for rater in training.raters)
    combined = drawn_by_hand(arrays, training.raters, tiny_config.data)
    only_expert = (curve == IGNORE) & (expert != IGNORE)
    np.testing.assert_array_equal(combined[only_expert], expert[only_expert])
    assert (combined[(curve != IGNORE) & (expert != IGNORE) & (curve != expert)] == IGNORE).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["majority", "weighted"])
def test_relabelling_keeps_the_scribbles_of_voting_raters(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path, method: str
) -> None:
    config = codec.override(tiny_config, {"data.raters": method})
    cases = find_cases(config.data, phantom_dir, ["own", "simulated:skeleton-dilated"])
    report = relabel(choose_cases(cases, split), BackgroundRunner(4), config.data, LABELLER, tmp_path / "out")
    assert all(item.drawn.percent > 0 for item in report.classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chaos", "lvsc", "ppss", "nnunet"])
def test_the_relabelled_folder_supervises_the_same_patients_in_every_layout(name: str, tmp_path: Path) -> None:
    write_phantom(name, tmp_path / "data", 5, seed=0)
    config = codec.override(preset(name, "fast", tmp_path / "data"), {"data.size_px": [32, 32], "data.spacing_mm": 6})
    first = prepare(tmp_path / "data", config.data, tmp_path / "cache")
    split = make_split(first.patients, config.data)
    training = choose_cases(find_cases(config.data, tmp_path / "data"), split)
    relabel(training, BackgroundRunner(config.data.num_classes), config.data, LABELLER, tmp_path / "out")
    second = prepare(tmp_path / "data", config.data, tmp_path / "cache", [str(tmp_path / "out")])
    assert make_split(second.patients, config.data) == split
    supervision = supervise(second, split, config)
    labels = supervision.scribbles[supervision.scribbled]
    assert (labels != IGNORE).mean() > (first.scribbles[supervision.scribbled, 0] != IGNORE).mean()
