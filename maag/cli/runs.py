"""Where runs and searches go that are given no place of their own."""

from __future__ import annotations

from pathlib import Path

from maag.errors import MissingDataError

RUNS = Path("runs")
STORED_PLAN = "search.json"
"""The file in a search's folder that says what was asked for."""
DEMO = "demo-"
"""How the names of demos' folders begin under runs/."""
DEMO_RUN = "run"
"""The run in a demo's folder."""
_BEST = ("checkpoints", "best.safetensors")
"""Where a run and a search have their best model."""


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


def newest_trained() -> tuple[Path, str]:
    """The run or the search anywhere below runs/ whose best model is the newest, and which of the two it is.

    A search's trials are no runs of their own: the best of them is the search's model, once it has ended. Nor is what
    a demo trained: nobody means synthetic patients who has a run of real ones.

    Raises MissingDataError.
    """
    from maag.data.files.folder_tree import files_below

    weights = [path for path in files_below(RUNS) if path.parts[-2:] == _BEST and path.is_file()]
    trained = {model: path for path in weights if not _is_of_demo(model := path.parent.parent)}
    searches = {model: search for model in trained if (search := _search_around(model))}
    found = [model for model in trained if model not in searches]
    if not found:
        sentence = f"{RUNS}: no trained run here to export; name one, or train one with `maag train`"
        for search in sorted(set(searches.values()))[:1]:
            sentence += f"; {search} is a search without a best model yet, which `maag tune --resume` goes on with"
        raise MissingDataError(sentence)
    newest = max(found, key=lambda model: trained[model].stat().st_mtime)
    return newest, "search" if (newest / STORED_PLAN).is_file() else "run"


def _is_of_demo(model: Path) -> bool:
    return model.name == DEMO_RUN and model.parent.parent == RUNS and model.parent.name.startswith(DEMO)


def _search_around(model: Path) -> Path | None:
    """The search of which the run is a trial."""
    return next((folder for folder in model.parents if (folder / STORED_PLAN).is_file()), None)
