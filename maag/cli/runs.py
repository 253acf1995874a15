"""The default folder of runs and searches, and how to find the newest one."""

from __future__ import annotations

from pathlib import Path

from maag.errors import MissingDataError

RUNS = Path("runs")
STORED_PLAN = "search.json"
"""The file in a search's folder with the options it was started with."""
DEMO = "demo-"
"""Prefix of demo folders under runs/."""
DEMO_RUN = "run"
"""Name of the run inside a demo's folder."""
_BEST = ("checkpoints", "best.safetensors")
"""Path of the best model in the folder of a run or a search."""


def newest_run(dataset: str) -> Path:
    """The run on `dataset` under runs/ that was started last. Raises MissingDataError."""
    from maag.storage import read_json

    # By content: names of runs on `chaos-ct` begin like those on `chaos`.
    found = RUNS.glob(f"{dataset}-*/config.json")
    runs = [path.parent for path in found if read_json(path).get("data", {}).get("dataset") == dataset]
    if not runs:
        raise MissingDataError(
            f"{RUNS}: no run on {dataset} to resume here; name one with --out, or leave out --resume"
        )
    return max(runs, key=lambda path: (path / "config.json").stat().st_mtime)


def newest_trained() -> tuple[Path, str]:
    """The run or search anywhere below runs/ with the newest best model, and `run` or `search`.

    Trials of a search and runs of demos do not count: the best trial is the search's model once the search has ended,
    and a demo trains on synthetic patients.

    Raises MissingDataError.
    """
    from maag.data.files.folder_tree import files_below

    weights = [path for path in files_below(RUNS) if path.parts[-2:] == _BEST and path.is_file()]
    trained = {model: path for path in weights if not _is_of_demo(model := path.parent.parent)}
    searches = {model: search for model in trained if (search := _search_around(model))}
    found = [model for model in trained if model not in searches]
    if not found:
        sentence = f"{RUNS}: no trained run to export here; name one, or train one with `maag train`"
        for search in sorted(set(searches.values()))[:1]:
            sentence += f"; {search} is a search without a best model yet, which `maag tune --resume` continues"
        raise MissingDataError(sentence)
    newest = max(found, key=lambda model: trained[model].stat().st_mtime)
    return newest, "search" if (newest / STORED_PLAN).is_file() else "run"


def _is_of_demo(model: Path) -> bool:
    return model.name == DEMO_RUN and model.parent.parent == RUNS and model.parent.name.startswith(DEMO)


def _search_around(model: Path) -> Path | None:
    """The search that the run is a trial of, if any."""
    return next((folder for folder in model.parents if (folder / STORED_PLAN).is_file()), None)
