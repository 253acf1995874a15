"""Training runs through the command line; existing runs are resumed, or kept if they are complete."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KINDS = ("best", "final")


def train_and_evaluate(
    folder: Path,
    data: Path,
    changes: Sequence[str],
    further: Sequence[str] = (),
    start: Sequence[object] = ("--preset", "fast"),
) -> None:
    """Train from `start` with `changes` on ACDC, one thread, and evaluate both checkpoints on the validation fold."""
    train(folder, data, changes, further, start)
    for kind in KINDS:
        out = folder / f"evaluation-{kind}"
        if not (out / "report.json").exists():
            weights = folder / "checkpoints" / f"{kind}.safetensors"
            maag("evaluate", weights, "--data", data, "--split", "val", "--out", out)


def train(
    folder: Path,
    data: Path,
    changes: Sequence[str],
    further: Sequence[str] = (),
    start: Sequence[object] = ("--preset", "fast"),
    dataset: str = "acdc",
) -> None:
    """Train from `start` with `changes`, one thread; an unfinished run is resumed, a finished one is kept."""
    result = folder / "result.json"
    if result.exists() and json.loads(result.read_text())["ending"] != "interrupted":
        return
    fresh = [*start, *(word for change in changes for word in ("--set", change))]
    started = (folder / "config.json").exists()
    words = ["--data", data, "--out", folder, *further, *(["--resume"] if started else fresh)]
    maag("train", *words, dataset=dataset)


def maag(command: str, *words: object, dataset: str = "acdc") -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "maag", command, *map(str, words), "--dataset", dataset]
    subprocess.run(line, check=True, env=environment)


def collect(folder: Path) -> dict[str, Any] | None:
    """The results of a finished run; None if it is not finished."""
    if not (folder / "evaluation-final" / "report.json").exists():
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    reports = {kind: json.loads((folder / f"evaluation-{kind}" / "report.json").read_text()) for kind in KINDS}
    return {
        "steps": result["steps"],
        "minutes": result["seconds"] / 60,
        "steps_per_second": result["steps_per_second"],
        "peak_memory_mib": result["peak_memory_mib"],
        "curve": [[line["epoch"], line["mean_dice"]] for line in lines if "mean_dice" in line],
        **{kind: reports[kind]["summary"] for kind in KINDS},
    }


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± sample standard deviation, which is left out for a single value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
