"""The tables and plot of `acdc_best.py`, for the arms that have finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from compare import BOTH, COMPONENT, FLIPS, ROTATIONS, ROTATIONS_COMPONENT, bootstrap, by_patient, compare
from matplotlib.figure import Figure
from runs import spread
from tables import markdown

from maag.inference import PLAIN, Refinement

TITLES = {
    PLAIN: "as it is",
    COMPONENT: "largest component",
    ROTATIONS: "rotations",
    ROTATIONS_COMPONENT: "rotations, largest component",
    FLIPS: "flips",
    BOTH: "flips, largest component",
}
REFINEMENTS = tuple(TITLES)
Runs = Mapping[int, Mapping[str, Any]]
"""By seed: `minutes` and `steps` of all stages, and the reports by refinement."""


def of(runs: Runs, refinement: Refinement = PLAIN) -> list[Mapping[str, Any]]:
    return [run["reports"][refinement.name] for run in runs.values()]


def table(found: Mapping[str, Runs]) -> str:
    """Dice of every arm, where each patient's is the mean over classes and seeds, and its gain over the first arm."""
    reference = next(iter(found))
    names = list(next(iter(found[reference].values()))["reports"][""]["summary"]["per_class"])
    rows = [["settings", "seeds", "updates", "Dice, 95 % interval", "± seeds", *names, "HD95 mm",
             f"gain over {reference}, 95 % interval", "better", "p", "min/run"]]  # fmt: skip
    for arm, runs in found.items():
        reports = of(runs)
        patients = by_patient(reports, "dice")
        low, high = bootstrap(list(patients.values()))
        updates = str(next(iter(runs.values()))["steps"])
        cells = [arm, ", ".join(map(str, runs)), updates, f"{fmean(patients.values()):.3f} ({low:.3f} to {high:.3f})"]
        cells.append(spread([report["summary"]["mean"]["dice"] for report in reports]))
        cells += [f"{fmean(report['summary']['per_class'][name]['dice']['mean'] for report in reports):.3f}"
                  for name in names]  # fmt: skip
        cells.append(spread([report["summary"]["mean"]["hd95_mm"] for report in reports], 1))
        cells += paired(runs, found[reference]) if arm != reference else ["", "", ""]
        rows.append([*cells, spread([run["minutes"] for run in runs.values()], 1)])
    return markdown(rows)


def paired(runs: Runs, baseline: Runs, score: str = "dice") -> list[str]:
    """Gain, number of patients who gain, and p of Wilcoxon's test, over the common seeds."""
    common = sorted(set(runs) & set(baseline))
    if not common:
        return ["", "", ""]
    sides = [by_patient([arm[seed]["reports"][""] for seed in common], score) for arm in (runs, baseline)]
    found = compare(*sides)
    return [
        f"{found.gain:+.3f} ({found.low:+.3f} to {found.high:+.3f})",
        f"{found.better} of {found.patients}",
        f"{found.p:.2g}",
    ]


def refined_table(found: Mapping[str, Runs]) -> str:
    """Dice and HD95 of every arm under each refinement."""
    rows = [["Dice / HD95 mm", *TITLES.values()]]
    for arm, runs in found.items():
        means = [[report["summary"]["mean"] for report in of(runs, each)] for each in REFINEMENTS]
        rows.append([arm, *(f"{fmean(mean['dice'] for mean in part):.3f} / "
                            f"{fmean(mean['hd95_mm'] for mean in part):.1f}" for part in means)])  # fmt: skip
    return markdown(rows)


def draw(found: Mapping[str, Runs], part: str, out: Path) -> None:
    figure = Figure(figsize=(7, 0.6 + 0.4 * len(found)), layout="constrained")
    axis = figure.subplots()
    for place, runs in enumerate(found.values()):
        patients = list(by_patient(of(runs), "dice").values())
        low, high = bootstrap(patients)
        middle = fmean(patients)
        axis.errorbar(middle, place, xerr=[[middle - low], [high - middle]], fmt="o", color="C0", capsize=3)
        seeds = [fmean(by_patient([report], "dice").values()) for report in of(runs)]
        axis.plot(seeds, [place + 0.2] * len(seeds), ".", color="gray", markersize=4)
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    axis.set_xlabel(f"mean Dice, {part} patients; bars: 95 % over patients, dots: seeds")
    axis.grid(alpha=0.3, axis="x")
    figure.savefig(out, dpi=120)
