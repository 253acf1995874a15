"""The report of an evaluation: scores by class, case and patient."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maag.data.cases import patient_and_frame
from maag.evaluate.agreement import Agreement, Pair, agreements, heart_pairs
from maag.metrics import PRESENCES, SCORES, ClassScores
from maag.storage import storage_errors, write_json, write_text

FORMAT_VERSION = 1
HEARTS = "heart.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is evaluated, and on which data."""

    model: str
    """Path of a run, an exported model, or a folder of predictions."""
    model_digest: str | None = None
    runner: str | None = None
    refinement: str = ""
    """Test-time augmentation and post-processing, such as `flips+largest-component`; empty for none."""
    checkpoint_kind: str | None = None
    """best or final, if the model is a checkpoint."""
    dataset: str
    split: str
    """val, test or all."""
    split_digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Statistics of one score over the cases that have it; None if no case has."""

    mean: float | None
    std: float | None
    """Population standard deviation (divided by n)."""
    median: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """The spread of the `values` that are not None."""
        defined = [value for value in values if value is not None]
        if not defined:
            return cls(mean=None, std=None, median=None, n=0)
        return cls(
            mean=statistics.fmean(defined),
            std=statistics.pstdev(defined),
            median=statistics.median(defined),
            n=len(defined),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseScores:
    """The scores of one case, by foreground class."""

    case_id: str
    patient_id: str
    frame: str
    scores: dict[str, ClassScores]
    volumes_ml: dict[str, Pair] = field(default_factory=dict)
    """Of mask and prediction, by foreground class; empty for pictures, whose pixels have no physical size."""
    expected_dice: dict[str, float] = field(default_factory=dict)
    """See `maag.expected_dice`; by foreground class that the model labelled, empty for existing predictions."""

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes that have a Dice; None if none has."""
        return Spread.of(scores.dice for scores in self.scores.values()).mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The results of `maag evaluate`."""

    subject: Subject
    cases: tuple[CaseScores, ...]
    without_mask: tuple[str, ...] = ()
    """Names of the split's cases that have no mask."""
    failed: dict[str, str] = field(default_factory=dict)
    """Error message by name of each other case that could not be measured; these are in no mean."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The foreground classes."""
        return tuple(self.cases[0].scores)

    def per_patient(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Mean over the patient's cases that have the score, by patient, class and score."""
        by_patient: dict[str, list[CaseScores]] = defaultdict(list)
        for case in self.cases:
            by_patient[case.patient_id].append(case)
        return {
            patient: {
                name: {score: Spread.of(getattr(case.scores[name], score) for case in cases).mean for score in SCORES}
                for name in self.classes
            }
            for patient, cases in sorted(by_patient.items())
        }

    def per_class(self) -> dict[str, dict[str, Spread]]:
        """Spread over cases, by class and score."""
        return {
            name: {score: Spread.of(getattr(case.scores[name], score) for case in self.cases) for score in SCORES}
            for name in self.classes
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of cases by class and presence: both, missed, invented, absent_in_both."""
        found = {name: Counter(case.scores[name].presence for case in self.cases) for name in self.classes}
        return {name: {presence: found[name][presence] for presence in PRESENCES} for name in self.classes}

    def mean(self, score: str) -> float | None:
        """Mean over classes of their means over cases; classes without the score are left out."""
        return Spread.of(spreads[score].mean for spreads in self.per_class().values()).mean

    def volume_pairs(self) -> dict[str, dict[str, Pair]]:
        """Volumes in ml of mask and prediction, by case and class."""
        return {case.case_id: case.volumes_ml for case in self.cases if case.volumes_ml}

    def heart_pairs(self) -> dict[str, dict[str, Pair]]:
        """Measures of the heart from masks and predictions, by heart; see `agreement.heart_pairs`.

        Frames of one heart are cases named like `X_frame01` and `X_frame12`; other cases of one patient may be from
        visits years apart.
        """
        frames: dict[str, dict[int, dict[str, Pair]]] = defaultdict(dict)
        for case in self.cases:
            heart, frame = patient_and_frame(case.case_id)
            if frame is not None and case.volumes_ml:
                frames[heart][frame] = case.volumes_ml
        return heart_pairs(frames, self.classes)

    def expected_pairs(self) -> dict[str, dict[str, Pair]]:
        """Real and expected Dice by case and class, and their mean over classes as `mean`."""
        found = {}
        for case in self.cases:
            pairs = {
                name: Pair(reference=dice, predicted=expected)
                for name, expected in case.expected_dice.items()
                if (dice := case.scores[name].dice) is not None
            }
            if pairs:
                sides = ([pair.reference for pair in pairs.values()], [pair.predicted for pair in pairs.values()])
                mean = Pair(reference=statistics.fmean(sides[0]), predicted=statistics.fmean(sides[1]))
                found[case.case_id] = {**pairs, "mean": mean}
        return found

    def agreement(self) -> dict[str, dict[str, Agreement]]:
        """Agreement with the masks of volumes, measures of the heart, and the expected Dice, by kind and name."""
        return {
            "volume_ml": agreements(self.volume_pairs()),
            "heart": agreements(self.heart_pairs()),
            "expected_dice": agreements(self.expected_pairs()),
        }

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`; undefined scores are null."""
        counts = self.counts()
        return {
            "format_version": FORMAT_VERSION,
            "subject": dataclasses.asdict(self.subject),
            "summary": {
                "num_cases": len(self.cases),
                "num_patients": len({case.patient_id for case in self.cases}),
                "num_without_mask": len(self.without_mask),
                "num_failed": len(self.failed),
                "mean": {score: self.mean(score) for score in SCORES},
                "per_class": {
                    name: {**{score: dataclasses.asdict(spread) for score, spread in spreads.items()}, **counts[name]}
                    for name, spreads in self.per_class().items()
                },
                "agreement": {
                    kind: {name: dataclasses.asdict(each) for name, each in found.items()}
                    for kind, found in self.agreement().items()
                },
            },
            "patients": self.per_patient(),
            "cases": [dataclasses.asdict(case) for case in self.cases],
            "without_mask": list(self.without_mask),
            "failed": self.failed,
        }

    def write(self, out: Path) -> None:
        """Write `report.json`, `cases.csv` and, if hearts were measured, `heart.csv` to the folder `out`.

        Raises StorageError.
        """
        write_json(out / "report.json", self.to_dict())
        header = ["case_id", "patient_id", "frame", "class", "presence", *SCORES, "reference_ml", "predicted_ml"]
        header.append("expected_dice")
        rows: list[list[object]] = []
        for case in self.cases:
            for name, scores in case.scores.items():
                values = [getattr(scores, score) for score in SCORES]
                pair = case.volumes_ml.get(name)
                volumes = [pair.reference, pair.predicted] if pair else [None, None]
                values += [*volumes, case.expected_dice.get(name)]
                rows.append([case.case_id, case.patient_id, case.frame, name, scores.presence, *values])
        _write_csv(out / "cases.csv", header, rows)
        if hearts := self.heart_pairs():
            rows = [
                [heart, name, pair.reference, pair.predicted]
                for heart, pairs in hearts.items()
                for name, pair in pairs.items()
            ]
            _write_csv(out / HEARTS, ["heart", "measure", "reference", "predicted"], rows)
        else:
            with storage_errors(out / HEARTS):
                (out / HEARTS).unlink(missing_ok=True)  # of an earlier evaluation


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
