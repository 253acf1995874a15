"""Scribble learning on real ACDC with the fast preset, arm against arm at equal budgets.

    python benchmarks/acdc_fast.py --data ACDC_DIR --out DIR [--seeds 1 2 3] [--at-once 2]

Trains every arm with every seed through `maag train`, one thread each, measures the validation fold at source
resolution through `maag evaluate`, and writes table.md, curves.png and results.json to DIR. A run that is there
already is resumed or taken as it is, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ARMS = {
    "partial cross-entropy": ["gates.levels=[]", "loss.adversarial=0"],
    "with gates": ["loss.adversarial=0"],
    "full MAAG": [],
    "dense masks (bound)": ["data.supervision=dense", "loss.adversarial=0"],
}
KINDS = ("best", "final")


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
    results = [result for job in jobs if (result := collect(*job, options.out))]
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "table.md").write_text(table(results))
    draw_curves(results, options.out / "curves.png")
    print(table(results))


def run(arm: str, seed: int, options: argparse.Namespace) -> None:
    folder = path_of(arm, seed, options.out)
    if not (folder / "result.json").exists():
        changes = [f"train.seed={seed}", *ARMS[arm], *([f"optim.epochs={options.epochs}"] if options.epochs else [])]
        fresh = ["--preset", "fast", *(word for change in changes for word in ("--set", change))]
        started = (folder / "config.json").exists()
        maag("train", "--data", options.data, "--out", folder, *(["--resume"] if started else fresh))
    for kind in KINDS:
        out = folder / f"evaluation-{kind}"
        if not (out / "report.json").exists():
            weights = folder / "checkpoints" / f"{kind}.safetensors"
            maag("evaluate", weights, "--data", options.data, "--split", "val", "--out", out)


def maag(command: str, *words: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "maag", command, *map(str, words), "--dataset", "acdc"]
    subprocess.run(line, check=True, env=environment)


def path_of(arm: str, seed: int, out: Path) -> Path:
    return out / f"{arm.split(' (')[0].replace(' ', '-')}-{seed}"


def collect(arm: str, seed: int, out: Path) -> dict[str, Any] | None:
    folder = path_of(arm, seed, out)
    if not (folder / "evaluation-final" / "report.json").exists():
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    reports = {kind: json.loads((folder / f"evaluation-{kind}" / "report.json").read_text()) for kind in KINDS}
    return {
        "arm": arm,
        "seed": seed,
        "minutes": result["seconds"] / 60,
        "steps_per_second": result["steps_per_second"],
        "peak_memory_mib": result["peak_memory_mib"],
        "curve": [[line["epoch"], line["mean_dice"]] for line in lines if "mean_dice" in line],
        **{kind: reports[kind]["summary"] for kind in KINDS},
    }


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


def spread(values: list[float], digits: int = 3) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


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
