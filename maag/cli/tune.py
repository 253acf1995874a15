"""`maag tune`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.options import (
    FOLDER,
    address_option,
    config_options,
    data_option,
    dataset_option,
    device_option,
    json_option,
    resume_options,
    scribbles_option,
    split_file_option,
    wait_option,
)
from maag.cli.out_place import require_outside
from maag.cli.resolving import find_data, resolve_config
from maag.cli.runs import RUNS
from maag.cli.tune_plan import inspect_machine, make_plans
from maag.cli.tune_resumed import ignored_options, refuse_what_is_fixed
from maag.cli.tune_stored import fetch_search, is_there, newest_search
from maag.errors import ConfigError

if TYPE_CHECKING:
    from maag.config.schema import Config
    from tune.results import TrialResult

_CPU_EPOCHS, _GPU_EPOCHS = 9, 90


@click.command("tune")
@dataset_option
@data_option
@scribbles_option
@click.option("--out", type=FOLDER, help="The search's folder.  [default: runs/NAME-tune-TIME]")
@click.option("--trials", type=click.IntRange(min=1), help="Number of trials.  [default: 12, with a GPU 32]")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help="Number of concurrent trials.  [default: one per GPU, or one per CPU core]",
)
@click.option(
    "--time", "minutes", type=click.FloatRange(min=0, min_open=True), help="Time limit of the search in minutes."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Epochs of each trial; overrides --set optim.epochs.  [default: 9, with a GPU 90]",
)
@click.option(
    "--search",
    "algorithm",
    type=click.Choice(("tpe", "random", "pbt")),
    default="tpe",
    show_default=True,
    help="tpe and random stop poor trials early (ASHA); pbt changes settings during training.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Number of workers per trial.  [default: 1]")
@address_option
@click.option(
    "--storage",
    metavar="DIR|URI",
    help="Where states of trials go, reachable from all nodes: a shared folder, or s3://BUCKET/PREFIX.  "
    "[default: --out]",
)
@wait_option
@config_options("fast, with a GPU paper")
@device_option
@split_file_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the sampler.")
@resume_options("search")
@json_option
def tune_command(
    dataset: str,
    data_dir: Path | None,
    scribbles: tuple[str, ...],
    out: Path | None,
    trials: int | None,
    concurrency: int | None,
    minutes: float | None,
    epochs: int | None,
    algorithm: str,
    workers: int | None,
    address: str | None,
    storage: str | None,
    wait_minutes: float,
    preset: str | None,
    config_file: Path | None,
    changes: tuple[str, ...],
    device_name: str,
    split_file: Path | None,
    seed: int,
    resume: bool,
    resume_if_there: bool,
    as_json: bool,
) -> int:
    """Search loss weights and gate settings.

    Every trial is a training run in OUT/trials. OUT holds trials.csv, best.json (for maag train --config), the best
    model (for maag export OUT), and search.png. After an interruption, continue with --resume.
    """
    from maag.cli.terminal import print_json, say
    from maag.cli.tune_display import SearchDisplay
    from maag.config import codec
    from tune.results import best_of
    from tune.search import search
    from tune.space import explain

    directory = find_data(dataset, data_dir)
    machine = inspect_machine(device_name, address, workers or 1, wait_minutes)
    on_gpu = machine.device == "cuda"
    if resume_if_there:
        resume = is_there(out, storage)
    if resume:
        if not resume_if_there and (preset or config_file or changes or split_file):
            raise ConfigError(
                "--resume uses the search's own settings and split: leave out --preset, --config, --set and "
                "--split-file"
            )
        if not resume_if_there:
            refuse_what_is_fixed()
        path = out or newest_search(dataset)
        if storage:
            fetch_search(path, storage)
    else:
        path = out or RUNS / f"{dataset}-tune-{datetime.now():%Y%m%d-%H%M%S}"
        require_outside(out, directory, scribbles)
    names = {change.partition("=")[0].strip() for change in changes}
    if validated := sorted(name for name in names if name.startswith("train.validate_every")):
        say(f"--set {validated[0]} has no effect: a search validates every trial nine times.")
    words = [*changes]
    if epochs or not (config_file or "optim.epochs" in names):
        words.append(f"optim.epochs={epochs or (_GPU_EPOCHS if on_gpu else _CPU_EPOCHS)}")
    config = None
    if not resume or resume_if_there:
        config = resolve_config(
            dataset, None if config_file else preset or ("paper" if on_gpu else "fast"), config_file, words, directory
        )
    if config and resume:
        given = {*names, "optim.epochs"} if epochs or config_file else names
        for sentence in ignored_options(path, config, given, split_file, whole=bool(preset or config_file)):
            say(sentence)
        config = None  # the search's own settings are in its folder
    if config and config.train.patience:
        say(f"train.patience={config.train.patience} has no effect: the search stops poor trials early itself.")
    plan, trial = make_plans(
        path, config, directory, scribbles, machine, split_file,
        {"trials": trials, "at_once": concurrency, "max_minutes": minutes, "algorithm": algorithm, "address": address,
         "storage": storage, "workers": workers, "wait_minutes": wait_minutes, "seed": seed}, held=names, resume=resume,
    )  # fmt: skip
    for sentence in explain(config, names, plan.space) if config else ():
        say(f"Note: {sentence}")
    size = f"{plan.trials} trials of up to {plan.epochs} epochs, {plan.at_once} at once"
    say(f"Search {path}: {size}, on {machine.device}")
    began = time.monotonic()
    with SearchDisplay(plan.trials) as display:
        results = search(plan, trial, display.show, resume=resume, notify=lambda what: say(f"Note: {what}"))
    out_of_time = minutes is not None and time.monotonic() - began > 60 * minutes
    ended = sum(result.status in ("done", "stopped", "failed") for result in results)
    best = best_of(results)
    if best is None:
        say(f"No trial was validated yet; continue with --resume{' and a longer --time' if out_of_time else ''}.")
        return 1
    _show_results(path, results, best, options_of_best(path, dataset, directory, trial.scribbles))
    if as_json:
        summary = {"out": str(path), "trials": len(results), "failed": _failed(results), "objective": best.objective}
        whole = {"ended": ended, "best": best.sample, "config_digest": codec.digest(_best(path))}
        print_json({**summary, **whole})
    if ended == plan.trials:
        return 0
    why = "Time limit reached" if out_of_time else "Stopped"
    say(f"{why}: {ended} of {plan.trials} trials have ended; continue with --resume.")
    return 0 if out_of_time else 1


def _show_results(path: Path, results: Sequence[TrialResult], best: TrialResult, again: Sequence[object]) -> None:
    """Show the results of a search and the next commands; `again` are options that train the best trial again."""
    from maag.cli.terminal import pluralized, print_table, say, shell_command
    from tune.results import importance
    from tune.schedule import SCHEDULE, read_schedule

    if shares := importance(results):
        rows = [(name, f"{share:.2f}") for name, share in shares.items()]
        print_table("Importance of settings", ("setting", "share"), rows)
    say(
        f"Best is trial {best.trial}: objective {best.objective:.4f}, "
        + ", ".join(f"{name}={value}" for name, value in best.sample.items())
    )
    or_again = f", or {shell_command('train', *again)}"
    if (changes_of_best := len(read_schedule(path / SCHEDULE)) - 1) > 0:
        or_again = ""  # training with the last settings alone does not reproduce the trial
        say(
            f"Its settings changed {pluralized(changes_of_best, 'time')} during training, see {path / SCHEDULE}; "
            "best.json has the last ones, which alone do not reproduce the trial."
        )
    trials = f"{len(results)} trials, {_failed(results)} failed: {path / 'trials.csv'}"
    say(f"{trials}. Next: {shell_command('export', path)}{or_again}")


def _failed(results: Sequence[TrialResult]) -> int:
    return sum(result.status == "failed" for result in results)


def options_of_best(path: Path, dataset: str, directory: Path, scribbles: Sequence[str]) -> list[object]:
    """The options of `maag train` that reproduce the best trial of the search in `path`."""
    sources = [word for source in scribbles for word in ("--scribbles", source)]
    files = ["--split-file", path / "split.json", "--config", path / "best.json"]
    return ["--dataset", dataset, "--data", directory, *sources, *files]


def _best(path: Path) -> Config:
    from maag.config import codec
    from maag.storage import read_json

    return codec.from_document(read_json(path / "best.json"), str(path / "best.json"))
