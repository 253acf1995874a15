"""What the `best` preset is worth on real ACDC at the fast preset's size, and what each part of it is.

    python benchmarks/acdc_best.py --data ACDC_DIR --out DIR [--seeds 1 2 3] [--epochs 10] [--at-once 1] [--arms ...]
        [--part val] [--set 'gates.levels=[]']

Every arm is the fast preset with some settings and sees as many images, but for three: two second stages train anew,
for as many epochs, on what the best settings' model of the same seed is sure of, and taught by it; and since these cost
both runs, the best settings train once for the epochs of both as well. Measured on the validation fold at source
resolution, final checkpoint, with and without rotations, flips and removal of small components. Whole methods are
compared with the fast preset, parts and options with the best settings, patient by patient, over the seeds that both
have. Writes table.md, plot.png and results.json to DIR. A run that is there already is resumed or taken as it is, so
the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from compare import (
    BOTH,
    COMPONENT,
    FLIPS,
    ROTATIONS,
    ROTATIONS_COMPONENT,
    bootstrap,
    by_patient,
    compare,
    measure,
    read_report,
)
from matplotlib.figure import Figure
from runs import maag, spread, train

from maag.config.presets import BEYOND_SMALL
from maag.inference import PLAIN, Refinement

BASELINE = "fast preset"
BEST = "best settings"
SECOND_STAGE = f"{BEST}, second stage"
TAUGHT_STAGE = f"{BEST}, taught by a first run"
BEST_LONGER = f"{BEST}, epochs of both stages"
WITHOUT_TEACHER = {"teacher.decay": 0, "loss.teacher": 0}
WITHOUT_SHAPES = {"gates.levels": [], "loss.adversarial": 0}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "without the teacher": WITHOUT_TEACHER,
    "the average alone, without its lesson": {"loss.teacher": 0},
    "without gates and discriminator": WITHOUT_SHAPES,
    "without the gates' lesson": {"teacher.gates": 0},
    "residual gates, but for the finest level": {"gates.levels": [1, 2, 3], "gates.residual": True},
    "adversarial weight 0.4": {"loss.adversarial": 0.4},
    "with class weights": {"loss.class_weights": 1.0},
    "with the roots of class weights": {"loss.class_weights": 0.5},
    "without elastic and gamma": {"augment.elastic": 0, "augment.gamma": 0},
    "batches of 12, rate 2e-3": {"optim.batch_size": 12, "optim.lr": 2e-3},
    "with a prior of areas": {"loss.areas": 0.3},
    "with cubic interpolation": {"augment.interpolation": "cubic"},
    "with cutout": {"augment.cutout": 0.3},
    "with a residual encoder": {"segmentor.residual_blocks": [1, 2, 2, 2]},
    "decay 0.999": {"teacher.decay": 0.999},
    "without class offsets": {"train.class_offsets": False},
    "teacher of slices as they are": {"teacher.rotation_deg": 0},
    "wider augmentation": {
        "augment.elastic": 0.03,
        "augment.scale": 0.25,
        "augment.gamma": 0.5,
        "augment.brightness": 0.2,
        "augment.contrast": 0.25,
        "augment.noise": 0.1,
    },
}
SETTINGS: Mapping[str, Any] = {**BEYOND_SMALL, "loss.class_weights": 0.0, "teacher.gates": 0.5}
"""What makes the best-fast preset of the fast one on ACDC."""
METHODS: Mapping[str, Mapping[str, Any]] = {
    BASELINE: {},
    BEST: SETTINGS,
    "partial cross-entropy": WITHOUT_SHAPES,
    "partial cross-entropy, best recipe": {**SETTINGS, **WITHOUT_SHAPES, **WITHOUT_TEACHER},
    "dense masks (bound), best recipe": {**SETTINGS, "data.supervision": "dense", "loss.adversarial": 0},
}
PARTS: Mapping[str, Mapping[str, Any]] = {
    **{f"{BEST}, {change}": {**SETTINGS, **settings} for change, settings in CHANGES.items()},
    SECOND_STAGE: SETTINGS,
    TAUGHT_STAGE: SETTINGS,
    BEST_LONGER: SETTINGS,
}
ARMS = {**METHODS, **PARTS}
FIRST_STAGE: Mapping[str, str] = {SECOND_STAGE: BEST, TAUGHT_STAGE: BEST}
"""By arm the one whose final model gives the labels, or teaches."""
ANOTHER_SEED = 100
"""Added for a run that is taught by one of its own settings, so that it does not begin where that began."""
TIMES_LONGER: Mapping[str, int] = {BEST_LONGER: 2}
"""By arm how many times the epochs of the others."""
TITLES = {
    PLAIN: "as it is",
    COMPONENT: "largest component",
    ROTATIONS: "rotations",
    ROTATIONS_COMPONENT: "rotations, largest component",
    FLIPS: "flips",
    BOTH: "flips, largest component",
}
REFINEMENTS = tuple(TITLES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--part", choices=("val", "shapes"), default="val", help="of the patients, that is measured")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting of all arms")
    parser.add_argument("--report-only", action="store_true", help="of what has finished so far")
    options = parser.parse_args()
    if not options.report_only:
        jobs = [(arm, seed) for seed in options.seeds for arm in options.arms]
        first = [job for job in jobs if job[0] not in FIRST_STAGE]
        spawn = multiprocessing.get_context("spawn")
        with ThreadPoolExecutor(options.at_once) as pool, ProcessPoolExecutor(options.at_once, spawn) as measuring:
            # One after the other, for what a second stage goes on from may be in the works among the first.
            for part in (first, [job for job in jobs if job not in first]):
                list(pool.map(lambda job: run(*job, options, measuring), part))
    found = {arm: finished(arm, options) for arm in ARMS}
    found = {arm: runs for arm, runs in found.items() if runs}
    (options.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    methods, parts = ({arm: found[arm] for arm in arms if arm in found} for arms in (METHODS, (BEST, *PARTS)))
    text = "\n".join([*(table(arms) for arms in (methods, parts) if len(arms) > 1), refined_table(found)])
    (options.out / "table.md").write_text(text)
    draw(found, options.part, options.out / "plot.png")
    print(text)


def run(arm: str, seed: int, options: argparse.Namespace, measuring: Executor) -> None:
    folder = path_of(arm, seed, options)
    epochs = options.epochs * TIMES_LONGER.get(arm, 1)
    changes = {**ARMS[arm], "train.seed": seed, "optim.epochs": epochs}
    further: list[object] = []
    if arm == SECOND_STAGE:
        further = ["--scribbles", denser_labels(arm, seed, options, measuring)]
    elif arm == TAUGHT_STAGE:
        further = ["--teacher", first_model(arm, seed, options, measuring)]
        changes["train.seed"] = seed + ANOTHER_SEED
    train(
        folder,
        options.data,
        [*(f"{path}={json.dumps(value)}" for path, value in changes.items()), *options.changes],
        further,
    )
    measuring.submit(measure, folder, options.data, options.part, REFINEMENTS).result()


def first_model(arm: str, seed: int, options: argparse.Namespace, measuring: Executor) -> Path:
    """The first stage's final weights, made first if they are not there."""
    run(FIRST_STAGE[arm], seed, options, measuring)
    return path_of(FIRST_STAGE[arm], seed, options) / "checkpoints" / "final.safetensors"


def denser_labels(arm: str, seed: int, options: argparse.Namespace, measuring: Executor) -> Path:
    """The folder of labels by the first stage's final model, made first if they are not there."""
    weights = first_model(arm, seed, options, measuring)
    labels = weights.parents[1] / "labels"
    if not labels.exists():
        maag("data", "relabel", weights, "--data", options.data, "--out", labels)
    return labels


def path_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in arm).strip("-")
    return options.out / f"{name}-{seed}"


Runs = Mapping[int, Mapping[str, Any]]
"""By seed: `minutes` and `steps` of all stages, and the reports by name of the refinement."""


def finished(arm: str, options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    runs = {}
    for seed in options.seeds:
        folder = path_of(arm, seed, options)
        reports = {each.name: read_report(folder, "final", options.part, each) for each in REFINEMENTS}
        if (folder / "result.json").exists() and all(reports.values()):
            stages = [path_of(each, seed, options) for each in (arm, FIRST_STAGE.get(arm)) if each]
            results = [json.loads((stage / "result.json").read_text()) for stage in stages]
            seconds, steps = (sum(result[what] for result in results) for what in ("seconds", "steps"))
            runs[seed] = {"minutes": seconds / 60, "steps": steps, "reports": reports}
    return runs


def of(runs: Runs, refinement: Refinement = PLAIN) -> list[Mapping[str, Any]]:
    return [run["reports"][refinement.name] for run in runs.values()]


def table(found: Mapping[str, Runs]) -> str:
    """Every arm's Dice, each patient's being the mean over classes and seeds, and its gain over the first arm."""
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
    """Gain, patients who gain, and the p of Wilcoxon's test, over the seeds that both have."""
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


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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


if __name__ == "__main__":
    main()
