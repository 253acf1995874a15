"""`maag tune`."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maag.cli.options import (
    ANY_PATH,
    FOLDER,
    absolute_source,
    config_options,
    data_option,
    dataset_option,
    device_option,
    find_data,
    json_option,
    pick_device,
    resolve_config,
    scribbles_option,
)
from maag.cli.train import RUNS
from maag.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from maag.config.schema import Config
    from tune.recorder import SearchPlan
    from tune.trial import TrialPlan

_CPU_TRIALS, _GPU_TRIALS = 12, 32
_CPU_EPOCHS, _GPU_EPOCHS = 9, 90
_VALIDATIONS = 9
_PLAN = "search.json"
_FORMAT_VERSION = 1


@click.command("tune")
@dataset_option
@data_option
@scribbles_option
@click.option("--out", type=FOLDER, help="The search's folder.  [default: runs/NAME-tune-TIME]")
@click.option("--trials", type=click.IntRange(min=1), help="How many settings to try.  [default: 12, with a GPU 32]")
@click.option(
    "--concurrency", type=click.IntRange(min=1), help="Trials at once.  [default: one a GPU, or one a CPU core]"
)
@click.option("--time", "minutes", type=click.FloatRange(min=0, min_open=True), help="Minutes for all of it.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of a trial.  [default: 9, with a GPU 90]")
@click.option(
    "--search",
    "algorithm",
    type=click.Choice(("tpe", "random", "pbt")),
    default="tpe",
    show_default=True,
    help="tpe and random stop poor trials early (ASHA); pbt changes settings on the way.",
)
@click.option("--address", help="Of a running Ray cluster whose nodes share --out and the data.  [default: none]")
@config_options
@device_option
@click.option("--split-file", type=ANY_PATH, help="Which patients do what: a split.json.  [default: data.split]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sampler.")
@click.option("--resume", is_flag=True, help="Go on with the search in --out, or the newest one of this data set.")
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
    address: str | None,
    preset: str | None,
    config_file: Path | None,
    changes: tuple[str, ...],
    device_name: str,
    split_file: Path | None,
    seed: int,
    resume: bool,
    as_json: bool,
) -> int:
    """Search loss weights and gate settings.

    Every trial is a training of its own in OUT/trials, with the fast preset where there is no GPU. OUT holds
    trials.csv, best.json (maag train --config takes it), the best model (maag export OUT takes it), and search.png.
    Killed in the middle, --resume goes on.
    """
    from maag.cli.terminal import print_json, print_table, say
    from maag.cli.tune_display import SearchDisplay
    from maag.config import codec
    from tune.results import best_of, importance
    from tune.search import search

    directory = find_data(dataset, data_dir)
    device = pick_device(device_name).type
    on_gpu = device == "cuda"
    if resume:
        if preset or config_file or changes or split_file:
            raise ConfigError(
                "--resume goes on with the search's own settings and split: leave out --preset, --config, --set and "
                "--split-file"
            )
        path = out or newest_search(dataset)
    else:
        path = out or RUNS / f"{dataset}-tune-{datetime.now():%Y%m%d-%H%M%S}"
    words = [*changes, f"optim.epochs={epochs or (_GPU_EPOCHS if on_gpu else _CPU_EPOCHS)}"]
    config = None
    if not resume:
        config = resolve_config(
            dataset, None if config_file else preset or ("paper" if on_gpu else "fast"), config_file, words, directory
        )
    plan, trial = _plans(
        path, config, directory, scribbles, device, split_file,
        {"trials": trials, "at_once": concurrency, "max_minutes": minutes, "algorithm": algorithm, "address": address,
         "seed": seed}, resume=resume,
    )  # fmt: skip
    say(f"Search {path}: {plan.trials} trials of up to {plan.epochs} epochs, {plan.at_once} at once, on {device}")
    with SearchDisplay(plan.trials) as display:
        results = search(plan, trial, display.show, resume=resume)
    best = best_of(results)
    if best is None:
        say("No trial was measured in the time given; allow more with --time, and go on with --resume.")
        return 1
    if shares := importance(results):
        rows = [(name, f"{share:.2f}") for name, share in shares.items()]
        print_table("Importance of settings", ("setting", "share"), rows)
    failed = sum(result.status == "failed" for result in results)
    say(
        f"Best is trial {best.trial}: objective {best.objective:.4f}, "
        + ", ".join(f"{name}={value}" for name, value in best.sample.items())
    )
    say(
        f"{len(results)} trials, {failed} failed: {path / 'trials.csv'}. Next: maag export {path}, or "
        f"maag train --dataset {dataset} --data {directory} --config {path / 'best.json'}"
    )
    if as_json:
        summary = {"out": str(path), "trials": len(results), "failed": failed, "objective": best.objective}
        print_json({**summary, "best": best.sample, "config_digest": codec.digest(_best(path))})
    return 0


def newest_search(dataset: str) -> Path:
    """The search of `dataset` under runs/ that was begun last. Raises MissingDataError."""
    searches = [path.parent for path in RUNS.glob(f"{dataset}-tune-*/{_PLAN}")]
    if not searches:
        raise MissingDataError(f"{RUNS}: no search of {dataset} here to resume; name one with --out, or start one")
    return max(searches, key=lambda path: (path / _PLAN).stat().st_mtime)


def _plans(
    path: Path,
    config: Config | None,
    directory: Path,
    scribbles: tuple[str, ...],
    device: str,
    split_file: Path | None,
    said: dict[str, Any],
    *,
    resume: bool,
) -> tuple[SearchPlan, TrialPlan]:
    """What is searched and how; a resumed search takes all that is not said anew from its search.json."""
    from maag.cli.terminal import preparing
    from maag.config import codec
    from maag.data.cache import default_cache_root, prepare
    from maag.data.catalog import reader_of
    from maag.data.splits import make_split
    from maag.data.supervision import supervise
    from maag.storage import read_json, write_json
    from maag.train.folder import read_split
    from tune.recorder import SearchPlan
    from tune.trial import TrialPlan

    stored = path / _PLAN
    if stored.exists() and not resume:
        raise ConfigError(f"{path} already holds a search; add --resume to continue it, or choose another --out")
    if resume and not stored.exists():
        raise MissingDataError(f"{path}: there is no search here to resume (no {_PLAN}); start without --resume")
    before: dict[str, Any] = read_json(stored) if resume else {}
    if resume and before.get("format_version") != _FORMAT_VERSION:
        raise ConfigError(
            f"{stored}: format_version {before.get('format_version')} is unknown; this maag reads {_FORMAT_VERSION}"
        )
    base = codec.from_dict(before["base"]) if config is None else config
    with preparing() as progress:
        prepared = prepare(directory, base.data, default_cache_root(), scribbles, progress)
    if resume:
        split = read_split(path / "split.json", prepared.patient_ids)
    elif split_file:
        split = read_split(split_file, prepared.patient_ids)
    else:
        split = make_split(prepared.patients, base.data, reader_of(base.data.dataset).split0)
    supervise(prepared, split, base)

    num_gpus, num_cores = _machine(device)
    defaults = {"trials": _GPU_TRIALS if num_gpus else _CPU_TRIALS, "at_once": num_gpus or num_cores}
    settings = {name: before.get(name, value) if value is None or resume else value for name, value in said.items()}
    settings |= {name: settings[name] or value for name, value in defaults.items()}
    settings |= {name: said[name] for name in ("max_minutes", "address")}
    settings["at_once"] = min(settings["at_once"], settings["trials"])
    if not resume:
        every = max(1, base.optim.epochs // _VALIDATIONS)
        base = codec.override(base, {"train.validate_every": every, "train.validate_every_late": every})
        write_json(path / "split.json", split.to_dict())
        write_json(stored, {"format_version": _FORMAT_VERSION, **settings, "base": codec.to_dict(base)})
    plan = SearchPlan(
        out=path,
        epochs=base.optim.epochs,
        validations=_VALIDATIONS,
        gpus_per_trial=1.0 if device == "cuda" else 0.0,
        **settings,
    )
    trial = TrialPlan(
        base=codec.to_dict(base),
        data_dir=str(directory.resolve()),
        scribbles=tuple(absolute_source(word) for word in scribbles),
        cache_root=str(default_cache_root().resolve()),
        split=split.to_dict(),
        trials_dir=str((path / "trials").resolve()),
        device=device,
        threads=max(1, num_cores // plan.at_once),
        share_state=plan.algorithm == "pbt",
    )
    return plan, trial


def _machine(device: str) -> tuple[int, int]:
    """GPUs in use and CPU cores of this process."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (torch.cuda.device_count() if device == "cuda" else 0), cores


def _best(path: Path) -> Config:
    from maag.config import codec
    from maag.storage import read_json

    return codec.from_document(read_json(path / "best.json"), str(path / "best.json"))
