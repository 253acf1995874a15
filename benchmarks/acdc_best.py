"""The gain of the `best` preset on real ACDC at the fast preset's size, and of each of its parts.

    python benchmarks/acdc_best.py --data ACDC_DIR --out DIR [--seeds 1 2 3] [--epochs 10] [--at-once 1] [--arms ...]
        [--part val] [--set 'gates.levels=[]']

Every arm is the fast preset with other settings and the same number of images, except three: two second stages train
again for as many epochs, one on the confident labels and one on the soft labels of the best settings' model of the same
seed; and since these cost two runs, the best settings are also trained once for the epochs of both. Evaluated on the
validation fold at source resolution, final checkpoint, with and without rotations, flips and removal of small
components. Whole methods are compared with the fast preset, parts and options with the best settings, patient by
patient, over their common seeds. Writes table.md, plot.png and results.json to DIR. Existing runs are resumed, or kept
if they are complete, so the script can be stopped and restarted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from acdc_arms import (
    ANOTHER_SEED,
    ARMS,
    BEST,
    FIRST_STAGE,
    METHODS,
    PARTS,
    SECOND_STAGE,
    STUDENT_STAGE,
    TIMES_LONGER,
)
from acdc_best_report import REFINEMENTS, draw, refined_table, table
from compare import measure, read_report
from runs import maag, train


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
            # First stages before second ones, which need their models.
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
    elif arm == STUDENT_STAGE:
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
    """The first stage's final weights; trained first if they do not exist."""
    run(FIRST_STAGE[arm], seed, options, measuring)
    return path_of(FIRST_STAGE[arm], seed, options) / "checkpoints" / "final.safetensors"


def denser_labels(arm: str, seed: int, options: argparse.Namespace, measuring: Executor) -> Path:
    """The folder of labels by the first stage's final model; made first if it does not exist."""
    weights = first_model(arm, seed, options, measuring)
    labels = weights.parents[1] / "labels"
    if not labels.exists():
        maag("data", "relabel", weights, "--data", options.data, "--out", labels)
    return labels


def path_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in arm).strip("-")
    return options.out / f"{name}-{seed}"


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


if __name__ == "__main__":
    main()
