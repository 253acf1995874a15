"""The runs of the full-size table on ACDC, and which of them are done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acdc_arms import WITHOUT_SHAPES, WITHOUT_TEACHER
from compare import COMPONENT, ROTATIONS, ROTATIONS_COMPONENT, read_report

from maag.config.presets import STUDENT
from maag.data.datasets.acdc import SPLIT0
from maag.inference import PLAIN
from maag.train.folder import RunFolder

_MASKED = sorted(SPLIT0["shapes"])
_HELD_OUT: Mapping[str, Sequence[str]] = {
    "P35": sorted(SPLIT0["val"]),
    "P70": sorted(SPLIT0["val"]),
    "P70-2": _MASKED[:15],
    "P70-3": _MASKED[15:30],
}
"""By track, the patients who validate: the paper's, or as many of the 35 with unpaired masks, in order of number."""
TRACKS = tuple(_HELD_OUT)
FOLDS = ("P70", "P70-2", "P70-3")
"""Tracks that differ only in the held-out patients."""
DENSE = {"data.supervision": "dense", "loss.adversarial": 0, "loss.adversarial_unlabelled": 0}
PARTIAL = {**WITHOUT_SHAPES, **WITHOUT_TEACHER, "loss.adversarial_unlabelled": 0}
_ONE, _THREE = "best, student of a first run", "best, student of three first runs"
ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "paper": ("paper", {}),
    "best": ("best", {}),
    _ONE: ("best", STUDENT),
    _THREE: ("best", STUDENT),
    "best, without gates and discriminator": ("best", {**WITHOUT_SHAPES, "loss.adversarial_unlabelled": 0}),
    "partial cross-entropy, best's recipe": ("best", PARTIAL),
    "dense masks, best's recipe": ("best", DENSE),
}
_FIRST_RUN_OF: Mapping[str, str] = {_ONE: "best", _THREE: "best"}
"""By student arm, the arm whose final models are the teachers."""
_TEACHER_SEEDS: Mapping[str, Sequence[int]] = {_THREE: (1, 2, 3)}
"""Seeds of the teachers, if these are not only the run's own seed."""
PARTS: Mapping[str, str] = {
    "test": "the paper's test fold",
    "val": "the validation fold",
    "shapes": "the 35 patients whose masks alone were seen",
}
KINDS = ("final", "best")
REFINEMENTS = (PLAIN, COMPONENT, ROTATIONS, ROTATIONS_COMPONENT)


def patients_of(track: str) -> dict[str, list[str]]:
    """Patients by role. In P70 the patients with unpaired masks have scribbles as well."""
    others = [patient for patient in (*_MASKED, *sorted(SPLIT0["val"])) if patient not in _HELD_OUT[track]]
    scribbled = sorted(SPLIT0["scribbled"])
    if track in FOLDS:
        scribbled = sorted([*scribbled, *others])
    return {
        "scribbled": scribbled,
        "shapes": sorted(others),
        "val": list(_HELD_OUT[track]),
        "test": sorted(SPLIT0["test"]),
    }


@dataclass(frozen=True, slots=True)
class Job:
    track: str
    arm: str
    seed: int

    def folder(self, out: Path) -> Path:
        name = "".join(letter if letter.isalnum() else "-" for letter in self.arm).strip("-")
        return out / self.track / f"{name}-{self.seed}"

    def teachers(self) -> list[Job]:
        """The jobs whose models are the teachers of this one."""
        if self.arm not in _FIRST_RUN_OF:
            return []
        seeds = _TEACHER_SEEDS.get(self.arm, (self.seed,))
        return [replace(self, arm=_FIRST_RUN_OF[self.arm], seed=seed) for seed in seeds]

    def is_trained(self, out: Path) -> bool:
        path = RunFolder(self.folder(out)).result
        return path.exists() and json.loads(path.read_text())["ending"] != "interrupted"

    def is_done(self, out: Path, parts: Sequence[str]) -> bool:
        return all(
            read_report(self.folder(out), kind, part, each)
            for part in self.unseen(parts)
            for kind in KINDS
            for each in REFINEMENTS
        )

    def unseen(self, parts: Sequence[str]) -> list[str]:
        """The `parts` whose images the run does not train on."""
        return [part for part in parts if part != "shapes" or self.track == "P35"]


def plan(tracks: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """All jobs, seed by seed, so that the table is complete for the first seeds as early as possible."""
    return [Job(track, arm, seed) for seed in seeds for track in tracks for arm in arms]
