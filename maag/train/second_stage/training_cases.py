"""The cases that are labelled for a second stage, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from maag.data.cases import Case, raters_of
from maag.data.splits import RELABELLED, Split
from maag.errors import SplitError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCases:
    """Cases to label, and the split of the second stage."""

    cases: tuple[Case, ...]
    raters: tuple[str, ...]
    """All raters of the data set, sorted."""
    split: Split

    @property
    def of_cine(self) -> bool:
        """Whether frames of 4-D images are among the cases; only data.supervision=semi reads these."""
        return any(case.time is not None for case in self.cases)


def choose_cases(cases: Sequence[Case], split: Split, *, with_unlabelled: bool = False) -> TrainingCases:
    """The `cases` that trained with scribbles; on request also those that trained without labels.

    Patients who validate, test, give unpaired masks, or train with masks are never among them. In the split of the
    second stage, unlabelled patients who get labels are scribbled ones.

    Raises:
        SplitError: no patient trained with scribbles, or a patient or all scribbles of training are missing.
    """
    if not split.scribbled:
        raise SplitError(
            f"split {split.scheme}: no patient trains with scribbles, so there are no labels to make denser; give a "
            "run that was trained on scribbles"
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
            f"split {split.scheme}: none of its {len(split.scribbled)} training patients has scribbles here; give "
            "their folder with --scribbles, as in training"
        )
    chosen = [case for case in cases if case.patient_id in wanted and (with_unlabelled or case.case_id in scribbled)]
    if any(case.case_id not in scribbled for case in chosen):
        scheme = split.scheme if split.relabelled else f"{split.scheme}{RELABELLED}"
        split = replace(split, scheme=scheme, scribbled=tuple(sorted(wanted)), unlabelled=())
    # Scribbles of unlabelled patients were hidden from training, and remain so.
    hidden = [case if case.case_id in scribbled else replace(case, scribbles=()) for case in chosen]
    return TrainingCases(cases=tuple(hidden), raters=raters_of(cases), split=split)
