"""Evaluate trained runs with and without refinements, and compare them patient by patient."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from maag.checkpoint import load_segmentor
from maag.data.cases import Case
from maag.data.catalog import find_cases
from maag.data.files.volume import Volume
from maag.data.splits import Split
from maag.evaluate.measure import Predicted, Predictor, evaluate, runner_predictor
from maag.evaluate.report import Subject
from maag.inference import PLAIN, Refinement, Runner, TorchRunner, largest_components
from maag.storage import read_json

COMPONENT = Refinement(largest_component=True)
FLIPS = Refinement(flips=True)
BOTH = Refinement(flips=True, largest_component=True)
ROTATIONS = Refinement(rotations=True)
ROTATIONS_COMPONENT = Refinement(rotations=True, largest_component=True)
_RESAMPLINGS = 10_000


class Comparison(NamedTuple):
    """One arm against another over the same patients; each patient's score is a mean over seeds."""

    gain: float
    low: float
    """Lower end of the 95 % interval of the gain, by bootstrap over patients."""
    high: float
    better: int
    """Number of patients who gain."""
    patients: int
    p: float
    """Of Wilcoxon's signed-rank test."""


def runs_to_measure(doc: str | None) -> argparse.Namespace:
    """The command line of scripts that measure finished `runs` on a `part` of the `data` into the folder `out`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("val", "shapes"), default="val")
    return parser.parse_args()


def measure(
    folder: Path,
    data: Path,
    part: str,
    refinements: Sequence[Refinement] = (PLAIN, COMPONENT, FLIPS, BOTH, ROTATIONS, ROTATIONS_COMPONENT),
    kinds: Sequence[str] = ("final",),
    device: str = "cpu",
) -> None:
    """Evaluate a run's checkpoints at source resolution; existing reports are kept."""
    for kind in kinds:
        lacking = [each for each in refinements if not report_of(folder, kind, part, each).exists()]
        if not lacking:
            continue
        trained = load_segmentor(folder / "checkpoints" / f"{kind}.safetensors")
        split = Split.from_dict(read_json(folder / "split.json"), str(folder))
        found = find_cases(replace(trained.config.data, cine=False), data)
        cases = [case for case in found if case.patient_id in getattr(split, part)]
        runner, once = TorchRunner(trained.segmentor, device), _Once()
        for refinement in lacking:
            name = f"{folder} {refinement.name}".strip()
            subject = Subject(
                model=name, checkpoint_kind=kind, dataset=trained.config.data.dataset, split=part,
                split_digest=split.digest,
            )  # fmt: skip
            shortfalls = trained.info.get("shortfalls", {})
            predictor = _predictor(runner, trained.config.data, refinement, shortfalls, once)
            evaluate(cases, predictor, trained.config.data, subject).write(
                report_of(folder, kind, part, refinement).parent
            )


_Once = dict[tuple[str, Refinement], Predicted]
"""By case and views."""


def _predictor(
    runner: Runner, data: Any, refinement: Refinement, shortfalls: Mapping[str, float], once: _Once
) -> Predictor:
    """Predicts each volume only once per set of views, for all refinements."""
    views = replace(refinement, largest_component=False)
    look = runner_predictor(runner, data, views, shortfalls)

    def predict(case: Case, volume: Volume) -> Predicted:
        key = (case.case_id, views)
        if key not in once:
            once[key] = look(case, volume)
        seen = once[key]
        if not refinement.largest_component:
            return seen
        return seen._replace(labels=largest_components(seen.labels, data.num_classes))

    return predict


def report_of(folder: Path, kind: str, part: str, refinement: Refinement = PLAIN) -> Path:
    return folder / f"evaluation-{part}-{kind}{'-' if refinement.name else ''}{refinement.name}" / "report.json"


def read_report(folder: Path, kind: str, part: str, refinement: Refinement = PLAIN) -> dict[str, Any] | None:
    path = report_of(folder, kind, part, refinement)
    return json.loads(path.read_text()) if path.exists() else None


def or_dash(value: float | None, form: str) -> str:
    """A number of a report in the format `form`; a dash where it is undefined, such as the correlation of few pairs."""
    return "-" if value is None else format(value, form)


def by_patient(reports: Sequence[Mapping[str, Any]], score: str) -> dict[str, float]:
    """Each patient's score: the mean over classes, and then over the runs."""
    runs: dict[str, list[float]] = {}
    for report in reports:
        for patient, classes in report["patients"].items():
            values = [scores[score] for scores in classes.values() if scores[score] is not None]
            if values:
                runs.setdefault(patient, []).append(statistics.fmean(values))
    return {patient: statistics.fmean(values) for patient, values in sorted(runs.items())}


def compare(arm: Mapping[str, float], baseline: Mapping[str, float]) -> Comparison:
    """Compare two arms over the patients that both have a score for."""
    patients = sorted(set(arm) & set(baseline))
    gains = np.array([arm[patient] - baseline[patient] for patient in patients])
    low, high = bootstrap(gains)
    p = float(wilcoxon(gains).pvalue) if gains.any() else 1.0
    return Comparison(float(gains.mean()), low, high, int((gains > 0).sum()), len(gains), p)


def bootstrap(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    numbers = np.asarray(values)
    drawn = np.random.default_rng(0).integers(len(numbers), size=(_RESAMPLINGS, len(numbers)))
    low, high = np.percentile(numbers[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
