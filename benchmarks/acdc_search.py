"""A search on real ACDC with the fast preset, and a comparison of its best settings with the default ones.

    python benchmarks/acdc_search.py --data ACDC_DIR --out DIR [--trials 16] [--epochs 9] [--seeds 11 12 13]

Runs `maag tune`; then trains both settings again, with seeds that the search did not use and as many epochs as a trial
had, and compares them patient by patient on the validation fold at source resolution. The search used that fold too;
the paper's test fold is not used. Writes table.md and results.json to DIR. It can be stopped and restarted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runs import collect, maag, spread, train_and_evaluate
from scipy.stats import wilcoxon

from maag.config import codec
from maag.storage import write_json

ARMS = ("default settings", "settings found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    search = options.out / "search"
    if not (search / "best.json").exists():
        resume = ["--resume"] if (search / "search.json").exists() else ["--preset", "fast", "--epochs", options.epochs]
        maag("tune", "--data", options.data, "--out", search, "--trials", options.trials, *resume)
    base = codec.from_dict(json.loads((search / "search.json").read_text())["base"])
    write_json(options.out / "base.json", codec.document(base))
    configs = dict(zip(ARMS, (options.out / "base.json", search / "best.json"), strict=True))
    jobs = [(arm, seed) for seed in options.seeds for arm in ARMS]
    with ThreadPoolExecutor(options.at_once) as pool:
        list(pool.map(lambda job: run(configs[job[0]], path_of(*job, options), job[1], options), jobs))
    results = {arm: [collect(path_of(arm, seed, options)) for seed in options.seeds] for arm in ARMS}
    patients = {arm: by_patient(arm, options) for arm in ARMS}
    gains = [patients[ARMS[1]][patient] - patients[ARMS[0]][patient] for patient in sorted(patients[ARMS[0]])]
    paired = {
        "mean_gain": statistics.fmean(gains),
        "patients_better": sum(gain > 0 for gain in gains),
        "patients": len(gains),
        "wilcoxon_p": float(wilcoxon(gains).pvalue),
    }
    write_json(options.out / "results.json", {"paired": paired, "runs": results})
    text = table(results) + "\n" + json.dumps(paired) + "\n"
    (options.out / "table.md").write_text(text)
    print(text)


def run(config: Path, folder: Path, seed: int, options: argparse.Namespace) -> None:
    train_and_evaluate(folder, options.data, (f"train.seed={seed}",), start=("--config", config))


def path_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    return options.out / f"{arm.replace(' ', '-')}-{seed}"


def by_patient(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Each patient's Dice with the final checkpoint: the mean over classes and seeds."""
    found: dict[str, list[float]] = {}
    for seed in options.seeds:
        report = json.loads((path_of(arm, seed, options) / "evaluation-final" / "report.json").read_text())
        for patient, classes in report["patients"].items():
            found.setdefault(patient, []).extend(scores["dice"] for scores in classes.values())
    return {patient: statistics.fmean(values) for patient, values in found.items()}


def table(results: dict[str, list[dict[str, Any] | None]]) -> str:
    rows = [["settings", "seeds", "mean Dice (final)", "mean Dice (best)", "HD95 mm (final)", "min/run"]]
    rows.append(["---"] * len(rows[0]))
    for arm, runs in results.items():
        done = [run for run in runs if run]
        rows.append([
            arm, str(len(done)),
            *(spread([run[kind]["mean"]["dice"] for run in done]) for kind in ("final", "best")),
            spread([run["final"]["mean"]["hd95_mm"] for run in done], 1),
            spread([run["minutes"] for run in done], 1),
        ])  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
