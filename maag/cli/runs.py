"""Where runs and searches go that are given no place of their own."""

from __future__ import annotations

from pathlib import Path

from maag.errors import MissingDataError

RUNS = Path("runs")


def newest_run(dataset: str) -> Path:
    """The run of `dataset` under runs/ that was begun last. Raises MissingDataError."""
    from maag.storage import read_json

    # By what stands in them: the names of runs of `chaos-ct` begin like those of `chaos`.
    found = RUNS.glob(f"{dataset}-*/config.json")
    runs = [path.parent for path in found if read_json(path).get("data", {}).get("dataset") == dataset]
    if not runs:
        raise MissingDataError(
            f"{RUNS}: no run of {dataset} here to resume; name one with --out, or leave out --resume"
        )
    return max(runs, key=lambda path: (path / "config.json").stat().st_mtime)
