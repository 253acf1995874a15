"""Labels for a second stage: their geometry, their confidence, their raters, and cases that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from background_runner import BackgroundRunner

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


def relabel_as_background(
    training: TrainingCases,
    config: Config,
    out: Path,
    progress_calls: list[tuple[int, int]] | None = None,
    entropy: float = 0.5,
) -> RelabelReport:
    """Relabel with a model whose entropy is 0.31 everywhere."""
    labeller = Labeller(model="runs/one", model_digest="0123", entropy=entropy)
    progress = None if progress_calls is None else lambda *at: progress_calls.append(at)
    return relabel(training, BackgroundRunner(4, probability=0.9), config.data, labeller, out, progress)


def with_another_rater(case: Case, path: Path, exchanged: list[int]) -> Case:
    """Add a rater whose scribbles, in the file `path`, are the expert's with exchanged labels."""
    (expert,) = case.scribbles
    assert isinstance(expert, ScribbleFile)
    image = nib.load(expert.path)
    labels = np.array(exchanged, np.uint8)[np.asarray(image.dataobj).astype(int)]
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    return replace(case, scribbles=(expert, ScribbleFile(rater="other", path=path)))


def test_labels_share_the_image_geometry_and_respect_the_entropy_limit(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    training, progress_calls = choose_cases(cases, split), list[tuple[int, int]]()
    lenient = relabel_as_background(training, tiny_config, tmp_path / "sure", progress_calls)
    strict = relabel_as_background(training, tiny_config, tmp_path / "unsure", entropy=0.3)
    # Except at the edge of the grid, where what is outside counts too.
    assert lenient.classes[0].labelled.percent > 10 * strict.classes[0].labelled.percent
    assert progress_calls == [(done, 4) for done in range(1, 5)]
    for case in training.cases:
        written = nib.load(tmp_path / "sure" / f"{case.case_id}_scribble.nii.gz")
        image = nib.load(case.images[0])
        assert written.shape == image.shape
        np.testing.assert_allclose(written.affine, image.affine)


def test_the_report_counts_cases_with_masks(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    first, *others = training.cases
    report = relabel_as_background(
        replace(training, cases=(replace(first, masks=()), *others)), tiny_config, tmp_path / "out"
    )
    assert (report.num_cases, report.num_cases_with_mask) == (4, 3)


def test_an_unreadable_image_does_not_stop_other_cases(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    first, *others = training.cases
    unreadable = replace(first, images=(tmp_path / "gone.nii.gz",))
    progress_calls: list[tuple[int, int]] = []
    report = relabel_as_background(
        replace(training, cases=(unreadable, *others)), tiny_config, tmp_path / "out", progress_calls
    )
    assert [*report.failed] == [first.case_id]
    assert "gone.nii.gz" in report.failed[first.case_id]
    assert progress_calls[-1] == (4, 4)


def test_unannotated_patients_stay_in_the_split(
    cases: tuple[Case, ...], split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    unannotated, _ = split.scribbled
    partly_annotated = [replace(case, scribbles=()) if case.patient_id == unannotated else case for case in cases]
    report = relabel_as_background(choose_cases(partly_annotated, split), tiny_config, tmp_path / "out")
    assert (report.num_patients, report.split_digest) == (1, split.digest)


def test_the_rater_with_the_larger_weight_wins_disagreements(
    cases: tuple[Case, ...], tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    first = training.cases[0]
    expert, other = with_another_rater(first, tmp_path / "other.nii.gz", [0, 3, 2, 1, 4]).scribbles
    assert isinstance(expert, ScribbleFile)
    assert isinstance(other, ScribbleFile)
    training = replace(training, cases=(replace(first, scribbles=(expert, other)),), raters=("expert", "other"))
    data = replace(tiny_config.data, raters="weighted", rater_weights=(0.2, 0.9))
    relabel_as_background(training, replace(tiny_config, data=data), tmp_path / "out")
    written = tmp_path / "out" / f"{first.case_id}_scribble.nii.gz"
    less, more, labels = (load_label_file(path, range(5)) for path in (expert.path, other.path, written))
    assert (less != more).any()
    np.testing.assert_array_equal(labels[less != more], more[less != more])


def test_raters_without_overlap_are_united(
    cases: tuple[Case, ...], tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    training = choose_cases(cases, split)
    # Background where the expert annotated nothing, and nothing elsewhere.
    both = with_another_rater(training.cases[0], tmp_path / "other.nii.gz", [4, 4, 4, 4, 0])
    assert tiny_config.data.raters == "union"
    report = relabel_as_background(
        replace(training, cases=(both,), raters=("expert", "other")), tiny_config, tmp_path / "out"
    )
    assert sum(item.drawn.percent for item in report.classes) == pytest.approx(100)


def test_the_split_is_marked_as_relabelled_once_and_only_if_it_was(cases: tuple[Case, ...], split: Split) -> None:
    unannotated = next(case for case in cases if case.patient_id == split.scribbled[0])
    partly_annotated = [replace(case, scribbles=()) if case == unannotated else case for case in cases]
    once = choose_cases(partly_annotated, split, with_unlabelled=True).split
    assert once.scheme == f"{split.scheme}-relabelled"
    assert choose_cases(partly_annotated, once, with_unlabelled=True).split.scheme == once.scheme
    assert choose_cases(cases, split, with_unlabelled=True).split == split


def test_raters_are_those_of_all_patients(cases: tuple[Case, ...], split: Split) -> None:
    """As in training: each rater has a weight, even one without scribbles of a training patient."""
    other = SimulatedScribble(rater="other", style="curve", ratio=1.0, seed=0)
    with_other = [replace(case, scribbles=(other,)) if case.patient_id in split.val else case for case in cases]
    assert choose_cases(with_other, split).raters == ("expert", "other")
