"""The `best` preset's settings on data they were not chosen for: other anatomies, as synthetic data.

    python benchmarks/phantoms_best.py --out DIR [--datasets chaos ppss] [--seeds 1 2 3] [--epochs 8] [--arms ...]

`maag data phantom` makes each data set; partial cross-entropy alone, the fast preset and the best settings train on the
fast preset's grid with equal numbers of updates, and are evaluated on the validation patients at source resolution,
final checkpoint. Writes table.md and results.json to DIR. Existing runs are resumed, or kept if they are complete.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from acdc_arms import BASELINE, BEST, WITHOUT_SHAPES
from compare import measure, read_report
from runs import maag, spread, train
from tables import markdown

from maag.config.presets import BEYOND_SMALL
from maag.inference import PLAIN

ARMS: dict[str, dict[str, Any]] = {
    "partial cross-entropy": WITHOUT_SHAPES,
    BASELINE: {},
    BEST: BEYOND_SMALL,
    f"{BEST}, whole class weights": {**BEYOND_SMALL, "loss.class_weights": 1.0},
    f"{BEST}, with gate supervision": {**BEYOND_SMALL, "teacher.gates": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=["chaos", "ppss"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--report-only", action="store_true", help="of what has finished so far")
    options = parser.parse_args()
    jobs = [(dataset, seed, arm) for dataset in options.datasets for seed in options.seeds for arm in options.arms]
    if not options.report_only:
        for dataset, seed, arm in jobs:
            run(dataset, seed, arm, options)
    found = {
        dataset: {arm: reports(dataset, arm, options) for arm in ARMS if reports(dataset, arm, options)}
        for dataset in options.datasets
    }
    (options.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    text = table(found)
    (options.out / "table.md").write_text(text)
    print(text)


def run(dataset: str, seed: int, arm: str, options: argparse.Namespace) -> None:
    data, folder = options.out / "data" / dataset, path_of(dataset, seed, arm, options)
    if not data.exists():
        maag("data", "phantom", "--out", data, "--cases", options.cases, dataset=dataset)
    changes = {**ARMS[arm], "train.seed": seed, "optim.epochs": options.epochs}
    train(folder, data, [f"{path}={json.dumps(value)}" for path, value in changes.items()], dataset=dataset)
    measure(folder, data, "val", [PLAIN])


def path_of(dataset: str, seed: int, arm: str, options: argparse.Namespace) -> Path:
    return options.out / dataset / f"{arm.replace(' ', '-')}-{seed}"


def reports(dataset: str, arm: str, options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Reports of the finished runs by seed."""
    found = {seed: read_report(path_of(dataset, seed, arm, options), "final", "val") for seed in options.seeds}
    return {seed: report for seed, report in found.items() if report}


def table(found: dict[str, dict[str, dict[int, dict[str, Any]]]]) -> str:
    rows = [["phantom", "settings", "seeds", "mean Dice (final)", "HD95 mm"]]
    for dataset, arms in found.items():
        for arm, runs in arms.items():
            means = [report["summary"]["mean"] for report in runs.values()]
            distances = [mean["hd95_mm"] for mean in means if mean["hd95_mm"] is not None]
            rows.append([dataset, arm, ", ".join(map(str, runs)), spread([mean["dice"] for mean in means]),
                         spread(distances, 1) if distances else "-"])  # fmt: skip
    return markdown(rows)


if __name__ == "__main__":
    main()
