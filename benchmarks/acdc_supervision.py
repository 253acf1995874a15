"""The kinds of supervision on real ACDC with the fast preset, at equal numbers of updates.

    python benchmarks/acdc_supervision.py --data ACDC_DIR --out DIR [--seeds 1] [--at-once 2] [--updates 550]

Fractions of the scribbles with and without the adversarial branch; three simulated annotators of different quality,
weighted or as a union; masks and scribbles together or either alone. Evaluated on the validation fold at source
resolution. Writes table.md, plot.png and results.json to DIR. It can be stopped and restarted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from runs import collect, spread, train_and_evaluate

from maag.config.codec import override
from maag.data.cache.preparing import default_cache_root, prepare
from maag.data.catalog import find_cases, preset
from maag.data.datasets.acdc import SPLIT0
from maag.data.files.nifti_writing import save_labels
from maag.data.files.volume import load_labels
from maag.data.scribbles.styles import simulate
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.labels import IGNORE

FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)
WITHOUT = ("gates.levels=[]", "loss.adversarial=0")
WITH = ("data.supervision=semi", "loss.adversarial_unlabelled=0.4")
RATERS = {"careful": 0.0, "hasty": 0.2, "careless": 0.5}
"""By rater, the fraction of scribbles with another structure's label."""
NUM_CLASSES = 4


@dataclass(frozen=True)
class Arm:
    group: str
    name: str
    changes: tuple[str, ...]
    raters: tuple[str, ...] = ()


ARMS = (
    *(Arm("without", f"{100 * part:g} % of the scribbles, partial cross-entropy alone",
          (f"data.scribbled_fraction={part}", *WITHOUT)) for part in FRACTIONS),
    *(Arm("with", f"{100 * part:g} % of the scribbles, the others' images unlabelled, full MAAG",
          (f"data.scribbled_fraction={part}", *WITH)) for part in FRACTIONS),
    Arm("raters", "the careful rater alone", (), ("careful",)),
    Arm("raters", "three raters, union", ("data.raters=union",), tuple(RATERS)),
    Arm("raters", "three raters, weighted by agreement", ("data.raters=weighted",), tuple(RATERS)),
    Arm("mixed", "20 % masks and 80 % scribbles", ("data.supervision=mixed", "data.dense_fraction=0.2")),
    Arm("mixed", "the 20 % masks alone", ("data.supervision=dense", "data.scribbled_fraction=0.2")),
    Arm("mixed", "80 % scribbles alone", ("data.scribbled_fraction=0.8",)),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--at-once", type=int, default=2)
    groups = ("without", "with", "raters", "mixed")
    parser.add_argument("--groups", nargs="+", choices=groups, default=groups)
    parser.add_argument("--updates", type=int, default=550)
    parser.add_argument("--report-only", action="store_true", help="of what has finished so far")
    options = parser.parse_args()
    jobs = [(place, seed) for seed in options.seeds for place, arm in enumerate(ARMS) if arm.group in options.groups]
    if not options.report_only:
        for rater, mistakes in RATERS.items():
            write_rater(options.data, options.out / "raters" / rater, mistakes)
        epochs = {place: epochs_of(ARMS[place], options) for place, _ in jobs}
        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lambda job: run(ARMS[job[0]], epochs[job[0]], job[1], options), jobs))
    found = [(ARMS[place], seed, collect(path_of(ARMS[place], seed, options))) for place, seed in jobs]
    results = [{"group": arm.group, "arm": arm.name, "seed": seed, **result} for arm, seed, result in found if result]
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "table.md").write_text(table(results))
    draw_fractions(results, options.out / "plot.png")
    print(table(results))


def write_rater(data: Path, out: Path, mistakes: float) -> None:
    """Write random-walk scribbles simulated from masks, a fraction of them with another structure's label."""
    if out.exists():
        return
    for case in find_cases(preset("acdc", "fast").data, data):
        mask, _ = load_labels(case.masks[0], range(NUM_CLASSES))
        strokes = simulate(mask, NUM_CLASSES, "random-walk", seed=len(out.name), case_id=case.case_id)
        random = np.random.default_rng([len(out.name), *case.case_id.encode()])
        drawn = np.stack([mislabelled(plane, mistakes, random) for plane in strokes])
        drawn[drawn == IGNORE] = NUM_CLASSES
        save_labels(out / f"{case.case_id}_scribble.nii.gz", drawn, case.masks[0], ("background", "RV", "MYO", "LV"))


def mislabelled(strokes: NDArray[np.uint8], mistakes: float, random: np.random.Generator) -> NDArray[np.uint8]:
    wrong = strokes.copy()
    for value in range(1, NUM_CLASSES):
        if random.random() < mistakes:
            wrong[strokes == value] = random.choice([other for other in range(1, NUM_CLASSES) if other != value])
    return wrong


def sources(arm: Arm, options: argparse.Namespace) -> list[str]:
    return [str(options.out / "raters" / rater) for rater in arm.raters]


def epochs_of(arm: Arm, options: argparse.Namespace) -> int:
    """The number of epochs with about `--updates` updates."""
    config = override(preset("acdc", "fast"), dict(change.split("=", 1) for change in arm.changes))
    prepared = prepare(options.data, config.data, default_cache_root(), sources(arm, options))
    split = make_split(prepared.patients, config.data, SPLIT0)
    batches = TrainingBatches(supervise(prepared, split, config), config, torch.device("cpu"))
    return max(1, round(options.updates / batches.steps_per_epoch))


def run(arm: Arm, epochs: int, seed: int, options: argparse.Namespace) -> None:
    every = max(1, epochs // 3)
    length = (f"optim.epochs={epochs}", f"train.validate_every={every}", f"train.validate_every_late={every}")
    further = [word for source in sources(arm, options) for word in ("--scribbles", source)]
    train_and_evaluate(
        path_of(arm, seed, options), options.data, (*arm.changes, *length, f"train.seed={seed}"), further
    )


def path_of(arm: Arm, seed: int, options: argparse.Namespace) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in arm.name)
    return options.out / f"{name}-{seed}"


def table(results: Sequence[dict[str, Any]]) -> str:
    classes = list(results[0]["final"]["per_class"]) if results else []
    rows = [["supervision", "seeds", "updates", "mean Dice (final)", *classes, "HD95 mm", "min/run"]]
    rows.append(["---"] * len(rows[0]))
    for arm in ARMS:
        runs = [result for result in results if result["arm"] == arm.name]
        if runs:
            of: Callable[..., str] = lambda read, digits=3, runs=runs: spread([read(item) for item in runs], digits)  # noqa: E731
            rows.append([
                arm.name, str(len(runs)), str(runs[0]["steps"]),
                of(lambda item: item["final"]["mean"]["dice"]),
                *(of(lambda item, name=name: item["final"]["per_class"][name]["dice"]["mean"]) for name in classes),
                of(lambda item: item["final"]["mean"]["hd95_mm"], 1), of(lambda item: item["minutes"], 1),
            ])  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def draw_fractions(results: Sequence[dict[str, Any]], out: Path) -> None:
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    for group, label in (("with", "full MAAG, other images unlabelled"), ("without", "partial cross-entropy alone")):
        arms = [arm.name for arm in ARMS if arm.group == group]
        dice = {
            100 * part: [item["final"]["mean"]["dice"] for item in results if item["arm"] == name]
            for part, name in zip(FRACTIONS, arms, strict=True)
        }
        dice = {part: values for part, values in dice.items() if values}
        axis.plot(list(dice), [np.mean(values) for values in dice.values()], marker="o", label=label)
        for part, values in dice.items():
            axis.plot([part] * len(values), values, ".", color="gray", markersize=3)
    axis.set_xscale("log")
    axis.set_xticks([100 * part for part in FRACTIONS], [f"{100 * part:g}" for part in FRACTIONS], minor=False)
    axis.set_xlabel("% of 35 patients whose scribbles are used")
    axis.set_ylabel("mean Dice, validation fold")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
