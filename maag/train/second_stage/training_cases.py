"""Whose images are labelled for a second stage, and who does what in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from maag.data.cases import Case, raters_of
from maag.data.splits import RELABELLED, Split
from maag.errors import SplitError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCases:
    """What is to be labelled, and who does what in the second stage."""

    cases: tuple[Case, ...]
    raters: tuple[str, ...]
    """All of the data set's, sorted."""
    split: Split

    @property
    def of_cine(self) -> bool:
        """Whether frames of 4-D images are among them, which only data.supervision=semi reads."""
        return any(case.time is not None for case in self.cases)


def choose_cases(cases: Sequence[Case], split: Split, *, with_unlabelled: bool = False) -> TrainingCases:
    """Of all `cases` those that trained with scribbles; on request also those that trained without any label.

    Patients who validate, test, give shapes, or train with masks are never among them. Unlabelled patients who get
    labels are among the scribbled ones of the second stage's split.

    Raises:
        SplitError: nobody trained with scribbles, or a patient or all scribbles of training are not there.
    """
    if not split.scribbled:
        raise SplitError(
            f"split {split.scheme}: no patient trains with scribbles, so there is nothing to make denser; give a run "
            "that was trained on scribbles"
        )
    wanted = {*split.scribbled, *(split.unlabelled if with_unlabelled else ())}
    absent = sorted(wanted - {case.patient_id for case in cases})
    if absent:
        raise SplitError(
            f"split {split.scheme}: {len(absent)} of its training patients are not in the data, the first is "
            f"{absent[0]}; give the data that the model was trained on"
        )
    scribbled = {case.case_id for case in cases if case.patient_id in split.scribbled and case.scribbles}
    if not scribbled:
        raise SplitError(
            f"split {split.scheme}: none of its {len(split.scribbled)} training patients has scribbles here; say with "
            "--scribbles where they come from, as in training"
        )
    chosen = [case for case in cases if case.patient_id in wanted and (with_unlabelled or case.case_id in scribbled)]
    if any(case.case_id not in scribbled for case in chosen):
        scheme = split.scheme if split.relabelled else f"{split.scheme}{RELABELLED}"
        split = replace(split, scheme=scheme, scribbled=tuple(sorted(wanted)), unlabelled=())
    # What an unlabelled patient may have of scribbles was hidden from training, and stays so.
    hidden = [case if case.case_id in scribbled else replace(case, scribbles=()) for case in chosen]
    return TrainingCases(cases=tuple(hidden), raters=raters_of(cases), split=split)
