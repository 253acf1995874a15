"""Training from scribbles on real ACDC with the fast preset: methods compared at equal budgets.

    python benchmarks/acdc_fast.py --data ACDC_DIR --out DIR [--seeds 1 2 3] [--at-once 2]

Trains every arm with every seed through `maag train`, one thread each, evaluates it on the validation fold at source
resolution through `maag evaluate`, and writes table.md, curves.png and results.json to DIR. Existing runs are resumed,
or kept if they are complete, so the script can be stopped and restarted.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from runs import collect, spread, train_and_evaluate

ARMS = {
    "partial cross-entropy": ["gates.levels=[]", "loss.adversarial=0"],
    "with gates": ["loss.adversarial=0"],
    "full MAAG": [],
    "dense masks": ["data.supervision=dense", "loss.adversarial=0"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--report-only", action="store_true", help="of what has finished so far")
    options = parser.parse_args()
    jobs = [(arm, seed) for seed in options.seeds for arm in ("full MAAG", *(a for a in ARMS if a != "full MAAG"))]
    if not options.report_only:
        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lambda job: run(*job, options), jobs))
    found = [(arm, seed, collect(path_of(arm, seed, options.out))) for arm, seed in jobs]
    results = [{"arm": arm, "seed": seed, **result} for arm, seed, result in found if result]
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "table.md").write_text(table(results))
    draw_curves(results, options.out / "curves.png")
    print(table(results))


def run(arm: str, seed: int, options: argparse.Namespace) -> None:
    changes = [f"train.seed={seed}", *ARMS[arm], *([f"optim.epochs={options.epochs}"] if options.epochs else [])]
    train_and_evaluate(path_of(arm, seed, options.out), options.data, changes)


def path_of(arm: str, seed: int, out: Path) -> Path:
    return out / f"{arm.replace(' ', '-')}-{seed}"


def table(results: list[dict[str, Any]]) -> str:
    classes = list(results[0]["best"]["per_class"]) if results else []
    columns = [
        "supervision and method",
        "seeds",
        "mean Dice (final)",
        "mean Dice (best)",
        *classes,
        "HD95 mm",
        "min/run",
    ]
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for arm in ARMS:
        runs = [result for result in results if result["arm"] == arm]
        if not runs:
            continue
        cells = [arm, str(len(runs)), spread([item["final"]["mean"]["dice"] for item in runs])]
        cells.append(spread([item["best"]["mean"]["dice"] for item in runs]))
        cells += [spread([item["best"]["per_class"][name]["dice"]["mean"] for item in runs]) for name in classes]
        cells.append(spread([item["best"]["mean"]["hd95_mm"] for item in runs], digits=1))
        cells.append(spread([item["minutes"] for item in runs], digits=1))
        lines.append(" | ".join(cells))
    return "".join(f"| {line} |\n" for line in lines)


def draw_curves(results: list[dict[str, Any]], out: Path) -> None:
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axis = figure.subplots()
    for place, arm in enumerate(ARMS):
        for result in (item for item in results if item["arm"] == arm):
            epochs, dice = zip(*result["curve"], strict=True)
            label = arm if result["seed"] == results[0]["seed"] else None
            axis.plot(epochs, dice, color=f"C{place}", label=label, marker=".", linewidth=1)
    axis.set_xlabel("epoch")
    axis.set_ylabel("mean validation Dice, training grid")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
