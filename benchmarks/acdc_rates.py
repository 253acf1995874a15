"""Learning rates and batch sizes of `best` at full size on real ACDC: short concurrent runs on one GPU.

    python benchmarks/acdc_rates.py --data ACDC_DIR --out DIR [--epochs 15] [--batches 6 12] [--rates 1e-3 2e-3 4e-3]

Reports the final model's Dice on the training grid; with one run each, small differences are not significant.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tables import markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="best")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting of all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [(batch, rate) for batch in options.batches for rate in options.rates]
    processes = {job: start(*job, options) for job in jobs}
    rows = [["slices a batch", "rate", "Dice at the end", "steps", "steps/s beside the others"]]
    for (batch, rate), process in processes.items():
        cells = ["failed", "", ""]
        if process.wait() == 0:
            found = json.loads((folder_of(batch, rate, options) / "result.json").read_text())
            cells = [f"{found['final_dice']:.3f}", str(found["steps"]), f"{found['steps_per_second']:.1f}"]
        rows.append([str(batch), f"{rate:g}", *cells])
    print(markdown(rows))


def folder_of(batch: int, rate: float, options: argparse.Namespace) -> Path:
    folder: Path = options.out / f"{options.preset}-{batch}-{rate:g}"
    return folder


def start(batch: int, rate: float, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    run = folder_of(batch, rate, options)
    changes = {
        "optim.batch_size": batch,
        "optim.lr": rate,
        "optim.epochs": options.epochs,
        "train.precision": "auto",
        "train.validate_every": 5,
        "train.validate_every_late": 5,
    }
    words = [f"{path}={json.dumps(value)}" for path, value in changes.items()] + options.changes
    line = [sys.executable, "-m", "maag", "train", "--dataset", "acdc", "--data", options.data, "--out", run]
    line += ["--preset", options.preset, *(word for change in words for word in ("--set", change))]
    with (options.out / f"{run.name}.log").open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([str(word) for word in line], stdout=log, stderr=log, env=environment)


if __name__ == "__main__":
    main()
