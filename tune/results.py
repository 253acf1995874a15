"""The results of a search: `trials.csv`, `best.json`, the best model, importances of settings, a plot."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from maag import checkpoint
from maag.config import codec
from maag.storage import replacing, require_regular_file, storage_errors, write_json, write_text
from tune.schedule import SCHEDULE
from tune.space import SPACE
from tune.trial import TrialPlan, best_config

Status = Literal["waiting", "running", "done", "stopped", "failed"]
_FACTS = ("trial", "status", "epoch", "objective", "best_dice", "mean_dice", "minutes", "error")
_FEWEST_FOR_IMPORTANCE = 6
LEFT_BEHIND = ("trials.csv", "best.json", SCHEDULE, f"checkpoints/{checkpoint.BEST}", "search.png")
"""Files of a search's folder that hold its results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """Status and results of one trial."""

    trial: str
    """Its id, and the name of its run folder."""
    sample: dict[str, Any]
    """Its values of the varied settings."""
    status: Status
    """`stopped`: ended early by the scheduler, because others were better."""
    epoch: int = 0
    epochs: int = 0
    objective: float | None = None
    best_dice: float | None = None
    mean_dice: float | None = None
    seconds: float = 0.0
    error: str = ""
    """One line of error message, if it failed."""


def best_of(trials: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the highest objective among those that finished; if none has, among all that were measured.

    Trials that were stopped early are not compared with finished ones, because objectives of different epochs differ.
    """
    measured = [trial for trial in trials if trial.objective is not None and trial.status != "failed"]
    finished = [trial for trial in measured if trial.status == "done"]
    return max(finished or measured, key=lambda trial: trial.objective or 0.0, default=None)


def write_trials(path: Path, trials: Sequence[TrialResult]) -> None:
    """Write `trials.csv`: one row per trial with its results and every varied setting. Raises StorageError."""
    settings = sorted({name for trial in trials for name in trial.sample})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*_FACTS, *settings])
    for trial in trials:
        facts = [trial.trial, trial.status, trial.epoch, trial.objective, trial.best_dice, trial.mean_dice]
        values = [trial.sample.get(name) for name in settings]
        rows.writerow([*facts, round(trial.seconds / 60, 2), trial.error, *values])
    write_text(path, text.getvalue())


def measured_in(path: Path) -> list[str]:
    """The ids of the measured trials in `trials.csv`. Raises StorageError."""
    if not path.exists():
        return []
    with storage_errors(path, "read"):
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        return [row["trial"] for row in rows if row["objective"]]


def write_best(out: Path, best: TrialResult, plan: TrialPlan, weights: Path, schedule: Path) -> None:
    """Write `best.json`, a whole configuration, and copy the best trial's `weights` to where `maag export` finds them.

    If trials change their settings during training, `best.json` has the last ones, and `schedule` is copied as well.
    Raises StorageError, before it replaces either if the weights are missing.
    """
    require_regular_file(weights)
    write_json(out / "best.json", codec.document(best_config(plan, best.sample)))
    with replacing(out / "checkpoints" / checkpoint.BEST) as temporary:
        shutil.copyfile(weights, temporary)
    if schedule.exists():
        with replacing(out / SCHEDULE) as temporary:
            shutil.copyfile(schedule, temporary)


def importance(trials: Sequence[TrialResult]) -> dict[str, float]:
    """Importance of each setting: the fraction of the objective's variance among good trials that it explains.

    PED-ANOVA (Watanabe et al., 2023) as implemented by Optuna. Empty with fewer than six measured trials, or if all are
    equally good.
    """
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    measured = [trial for trial in trials if trial.objective is not None]
    if len(measured) < _FEWEST_FOR_IMPORTANCE or len({trial.objective for trial in measured}) == 1:
        return {}
    names = set(SPACE).intersection(*(trial.sample for trial in measured))
    distributions = OptunaSearch.convert_search_space({name: SPACE[name] for name in sorted(names)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces each study
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: trial.sample[name] for name in distributions},
                distributions=distributions,
                value=trial.objective,
            )
            for trial in measured
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def draw_search(out: Path, trials: Sequence[TrialResult], importances: Mapping[str, float]) -> None:
    """Plot every trial's objective with the best so far, and the settings that mattered most. Raises StorageError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = [trial for trial in trials if trial.objective is not None]
    shown = list(importances)[:3]
    figure = Figure(figsize=(4 * (1 + len(shown)), 3.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(shown), squeeze=False)[0]
    values = [trial.objective or 0.0 for trial in measured]
    axes[0].plot(range(1, len(values) + 1), values, ".", label="trial")
    axes[0].step(
        range(1, len(values) + 1), [max(values[: end + 1]) for end in range(len(values))], where="post", label="best"
    )
    axes[0].set_xlabel("trial")
    axes[0].set_ylabel("objective: median of the last validations' Dice")
    axes[0].legend()
    for axis, name in zip(axes[1:], shown, strict=True):
        axis.plot([_plotted(trial.sample[name]) for trial in measured], values, ".")
        axis.set_xlabel(f"{name} (importance {importances[name]:.2f})")
        if all(isinstance(trial.sample[name], float) for trial in measured):
            axis.set_xscale("log" if min(trial.sample[name] for trial in measured) > 0 else "linear")
    for axis in axes:
        axis.grid(alpha=0.3)
    with replacing(out) as temporary:
        canvas.print_figure(temporary, format="png", dpi=110)


def _plotted(value: object) -> Any:
    return value if isinstance(value, float) else str(value)
