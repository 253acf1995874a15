"""Labels for a second stage: on whose images they lie, how sure they are, and what of them cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nothing_runner import Nothing

from maag.config.schema import Config
from maag.data.cases import Case, ScribbleFile, SimulatedScribble
from maag.data.catalog import find_cases
from maag.data.files.label_files import load_label_file
from maag.data.splits import Split
from maag.train.second_stage.relabel import Labeller, RelabelReport, relabel
from maag.train.second_stage.training_cases import TrainingCases, choose_cases


@pytest.fixture
def cases(phantom_dir: Path, tiny_config: Config) -> tuple[Case, ...]:
    return find_cases(tiny_config.data, phantom_dir)


def sure_of_background(
    training: TrainingCases, config: Config, out: Path, told: list[tuple[int, int]] | None = None, entropy: float = 0.5
) -> RelabelReport:
    """Labelled by a model whose entropy is 0.31 everywhere."""
    labeller = Labeller(model="runs/one", model_digest="0123", entropy=entropy)
    progress = None if told is None else lambda *at: told.append(at)
    return relabel(training, Nothing(4, probability=0.9), config.data, labeller, out, progress)


def with_another_rater(case: Case, path: Path, exchanged: list[int]) -> Case:
    """Who has drawn, into the file `path`, what the expert has, with other numbers."""
    (expert,) = case.scribbles
    assert isinstance(expert, ScribbleFile)
    image = nib.load(expert.path)
    drawn = np.array(exchanged, np.uint8)[np.asarray(image.dataobj).astype(int)]
    nib.save(nib.Nifti1Image(drawn, image.affine), path)
    return replace(case, scribbles=(expert, ScribbleFile(rater="other", path=path)))


def test_labels_lie_where_the_image_lies_and_are_as_sure_as_is_asked(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    training, told = choose_cases(cases, split), list[tuple[int, int]]()
    sure = sure_of_background(training, tiny_config, tmp_path / "sure", told)
    unsure = sure_of_background(training, tiny_config, tmp_path / "unsure", entropy=0.3)
    # But for the edge of the grid, where what is beyond counts in.
    assert sure.classes[0].labelled.percent > 10 * unsure.classes[0].labelled.percent
    assert told == [(done, 4) for done in range(1, 5)]
    for case in training.cases:
        written = nib.load(tmp_path / "sure" / f"{case.case_id}_scribble.nii.gz")
        image = nib.load(case.images[0])
        assert written.shape == image.shape
        np.testing.assert_allclose(written.affine, image.affine)


def test_masks_are_counted_where_there_are_any(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    first, *others = training.cases
    report = sure_of_background(
        replace(training, cases=(replace(first, masks=()), *others)), tiny_config, tmp_path / "out"
    )
    assert (report.num_cases, report.num_cases_with_mask) == (4, 3)


def test_a_file_that_cannot_be_opened_stops_no_other_case(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    first, *others = training.cases
    gone = replace(first, images=(tmp_path / "gone.nii.gz",))
    told: list[tuple[int, int]] = []
    report = sure_of_background(replace(training, cases=(gone, *others)), tiny_config, tmp_path / "out", told)
    assert [*report.failed] == [first.case_id]
    assert "gone.nii.gz" in report.failed[first.case_id]
    assert told[-1] == (4, 4)


def test_patients_nobody_drew_on_stay_in_the_split(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    bare, _ = split.scribbled
    drawn_on_one = [replace(case, scribbles=()) if case.patient_id == bare else case for case in cases]
    report = sure_of_background(choose_cases(drawn_on_one, split), tiny_config, tmp_path / "out")
    assert (report.num_patients, report.split_digest) == (1, split.digest)


def test_who_is_trusted_more_wins_where_raters_differ(
    cases: tuple[Case, ...], tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    first = training.cases[0]
    expert, other = with_another_rater(first, tmp_path / "other.nii.gz", [0, 3, 2, 1, 4]).scribbles
    assert isinstance(expert, ScribbleFile)
    assert isinstance(other, ScribbleFile)
    training = replace(training, cases=(replace(first, scribbles=(expert, other)),), raters=("expert", "other"))
    data = replace(tiny_config.data, raters="weighted", rater_weights=(0.2, 0.9))
    sure_of_background(training, replace(tiny_config, data=data), tmp_path / "out")
    written = tmp_path / "out" / f"{first.case_id}_scribble.nii.gz"
    less, more, labels = (load_label_file(path, range(5)) for path in (expert.path, other.path, written))
    assert (less != more).any()
    np.testing.assert_array_equal(labels[less != more], more[less != more])


def test_raters_who_never_meet_are_united(
    cases: tuple[Case, ...], tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    # Background where the expert left things open, and nothing elsewhere.
    both = with_another_rater(training.cases[0], tmp_path / "other.nii.gz", [4, 4, 4, 4, 0])
    assert tiny_config.data.raters == "union"
    report = sure_of_background(
        replace(training, cases=(both,), raters=("expert", "other")), tiny_config, tmp_path / "out"
    )
    assert sum(item.drawn.percent for item in report.classes) == pytest.approx(100)


def test_a_split_says_once_that_a_model_labelled_and_only_where_it_did(cases: tuple[Case, ...], split: Split) -> None:
    bare = next(case for case in cases if case.patient_id == split.scribbled[0])
    drawn_on_one = [replace(case, scribbles=()) if case == bare else case for case in cases]
    once = choose_cases(drawn_on_one, split, with_unlabelled=True).split
    assert once.scheme == f"{split.scheme}-relabelled"
    assert choose_cases(drawn_on_one, once, with_unlabelled=True).split.scheme == once.scheme
    assert choose_cases(cases, split, with_unlabelled=True).split == split


def test_raters_are_those_of_all_patients(cases: tuple[Case, ...], split: Split) -> None:
    """As in training: weights are one for each of them, though some drew on nobody who trains."""
    other = SimulatedScribble(rater="other", style="curve", ratio=1.0, seed=0)
    more = [replace(case, scribbles=(other,)) if case.patient_id in split.val else case for case in cases]
    assert choose_cases(more, split).raters == ("expert", "other")
