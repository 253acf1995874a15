"""`maag train`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.json_file import SPLIT_FILE
from maag.cli.options import (
    ANY_PATH,
    DATASETS,
    FOLDER,
    cluster_options,
    config_options,
    data_option,
    dataset_option,
    device_option,
    json_option,
    resume_options,
    scribbles_option,
)
from maag.cli.out_place import require_outside
from maag.cli.resolving import find_data, pick_device, refuse_idle_wait, resolve_config
from maag.cli.train_cluster import is_there, plan_cluster, recipe_of, require_new
from maag.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from maag.config.schema import Config
    from maag.data.prepared import PreparedData
    from maag.train.launch.launch import ClusterPlan
    from maag.train.outcome import Outcome

RUNS = Path("runs")


@click.command("train")
@dataset_option
@data_option
@scribbles_option
@click.option(
    "--shapes",
    "shapes_dir",
    type=FOLDER,
    help="Another folder of this data set's layout: the discriminator sees its masks, instead of some patients' here.",
)
@click.option(
    "--shapes-dataset",
    type=click.Choice(DATASETS),
    help="The layout of --shapes; classes are matched by name.  [default: --dataset]",
)
@click.option(
    "--teacher",
    "teachers",
    type=ANY_PATH,
    multiple=True,
    metavar="MODEL",
    help="A finished run or weights file of the same split that teaches where nobody drew, instead of the average of "
    "this run's own weights; several are averaged. Presets then have teacher.confidence=0 and teacher.ramp=0.",
)
@click.option("--out", type=FOLDER, help="The run's folder.  [default: runs/NAME-PRESET-TIME]")
@config_options
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set optim.epochs=N; goes before it.")
@click.option(
    "--max-time", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Stop after this time."
)
@cluster_options
@device_option
@click.option("--split-file", type=SPLIT_FILE, help="Which patients do what: a split.json.  [default: data.split]")
@resume_options("run")
@json_option
def train_command(
    dataset: str,
    data_dir: Path | None,
    scribbles: tuple[str, ...],
    shapes_dir: Path | None,
    shapes_dataset: str | None,
    teachers: tuple[Path, ...],
    out: Path | None,
    preset: str | None,
    config_file: Path | None,
    changes: tuple[str, ...],
    epochs: int | None,
    max_time: float | None,
    workers: tuple[int, int] | None,
    address: str | None,
    storage: str | None,
    wait_minutes: float,
    device_name: str,
    split_file: Path | None,
    resume: bool,
    resume_if_there: bool,
    as_json: bool,
) -> int:
    """Train a segmentor from scribbles.

    The run's folder holds config.json, split.json, metrics.jsonl, TensorBoard curves, and checkpoints: the best on
    validation, the final one, and the whole state to resume from. Ctrl-C and SIGTERM save before they end.
    """
    from maag.cli.terminal import print_json, say, to_type
    from maag.config.presets import FOR_CPUS, TAUGHT

    if shapes_dataset and not shapes_dir:
        raise ConfigError(
            f"--shapes-dataset {shapes_dataset}: it is the layout of --shapes, which is not given; add --shapes DIR or "
            "leave it out"
        )
    refuse_idle_wait(wait_minutes, over_ray=bool(workers or address or storage))
    directory = find_data(dataset, data_dir)
    cluster = None
    if workers or address or storage:
        cluster = plan_cluster(workers or (1, 1), address, storage, device_name, wait_minutes)
    if resume_if_there:
        resume = is_there(out, cluster)
    if resume:
        if not resume_if_there and (preset or config_file or changes or split_file):
            raise ConfigError(
                "--resume goes on with the run's own config.json and split.json: leave out --preset, --config, --set "
                "and --split-file"
            )
        run_path = out or newest_run(dataset)
        config = resumed_config(run_path, epochs, cluster)
        if config.data.dataset != dataset:
            raise ConfigError(f"{run_path} trains on data set {config.data.dataset!r}, --dataset says {dataset!r}")
    else:
        implied = [f"{name}={value}" for name, value in TAUGHT.items()] if teachers and not config_file else []
        words = [*implied, *changes, *([f"optim.epochs={epochs}"] if epochs else [])]
        config = resolve_config(dataset, preset, config_file, words, directory)
        name = "custom" if config_file else preset or "paper"
        run_path = out or RUNS / f"{dataset}-{name}-{datetime.now():%Y%m%d-%H%M%S}"
        require_outside(out, directory, scribbles, shapes_dir)
        if cluster:
            require_new(run_path, cluster)
    device = pick_device("cpu" if cluster else device_name)
    if not cluster and device.type == "cpu" and not resume and not config_file and preset not in FOR_CPUS:
        say("There is no GPU here: this preset would take hours to days; --preset best-fast is made for CPUs.")
    outcome = train(
        config,
        directory,
        run_path,
        device,
        scribbles=scribbles,
        shapes=(shapes_dataset or dataset, shapes_dir) if shapes_dir else None,
        teachers=teachers,
        split_file=split_file,
        max_time=max_time,
        resume=resume,
        cluster=cluster,
    )
    if outcome.ending != "interrupted":
        say(f"Next: {to_type('evaluate', run_path, '--dataset', dataset, '--data', directory)}")
    if as_json:
        print_json(asdict(outcome))
    return 1 if outcome.ending == "interrupted" else 0


def train(
    config: Config,
    directory: Path,
    run_path: Path,
    device: torch.device,
    *,
    scribbles: Sequence[str] = (),
    shapes: tuple[str, Path] | None = None,
    teachers: Sequence[Path] = (),
    split_file: Path | None = None,
    max_time: float | None = None,
    resume: bool = False,
    cluster: ClusterPlan | None = None,
) -> Outcome:
    """Prepare, split, and train, in this process or on a cluster, told on the terminal.

    `shapes` is the layout and the folder of other patients whose masks the discriminator sees; `teachers` are finished
    models, see `open_teachers`.
    """
    from maag.cli.preparing import prepare_told, shapes_told
    from maag.cli.terminal import TrainingDisplay, say
    from maag.config import codec
    from maag.data.catalog import reader_of
    from maag.data.shapes import require_others
    from maag.data.split_making import make_split
    from maag.data.supervision import supervise, without_effect
    from maag.storage import require_writable_place, write_json
    from maag.train.acceleration import require_fast
    from maag.train.fit import fit
    from maag.train.folder import create_run, open_run, read_split, require_no_run
    from maag.train.second_stage.teachers import open_teachers, read_teachers
    from maag.train.stopping import StopRequest, stopping_on_signals

    if not cluster:
        require_fast(config.train, device)
    if not resume:
        require_no_run(run_path)
    require_writable_place(run_path)
    prepared = prepare_told(directory, config.data, scribbles)
    other: PreparedData | None = None
    foreign: tuple[str, ...] = ()
    if shapes:
        name, folder = shapes
        other = shapes_told(name, folder, config.data)
        foreign = tuple(f"{folder.resolve().name}/{patient}" for patient in other.patient_ids)
    if resume:
        run, before = open_run(run_path)
        if config != before:
            # More epochs are this run's from now on, also for whoever resumes it next.
            write_json(run.config, codec.document(config))
        split = read_split(run.split, [*prepared.patient_ids, *foreign])
        opened = open_teachers(teachers or read_teachers(run.teachers), config, split)
        if other:
            require_others(prepared, split, other)
    else:
        published = reader_of(config.data.dataset).split0
        split = (
            read_split(split_file, [*prepared.patient_ids, *foreign])
            if split_file
            else make_split(prepared.patients, config.data, published, foreign)
        )
        if other:
            require_others(prepared, split, other)
        supervise(prepared, split, config, other)
        opened = open_teachers(teachers, config, split)
        for note in without_effect(config, split, prepared.raters):
            say(f"Note: {note}")
        run = create_run(run_path, config, split, opened)
    stop = StopRequest(max_time)
    place = "Ray" if cluster else str(device)
    with TrainingDisplay(run.path, config, split, codec.digest(config), place) as display, stopping_on_signals(stop):
        if cluster:
            from maag.train.launch.launch import launch

            models = [teacher.path for teacher in opened]
            recipe = recipe_of(config, split, directory, scribbles, shapes, max_time, models)
            outcome = launch(recipe, cluster, run, listener=display, tell=say, stop=stop, resume=resume)
        else:
            outcome = fit(
                config, prepared, split, run, device=device, listener=display, stop=stop, resume=resume, shapes=other,
                teachers=opened, said=display.on_lessons,
            )  # fmt: skip
    display.tell_outcome(outcome)
    return outcome


def resumed_config(run_path: Path, epochs: int | None, cluster: ClusterPlan | None = None) -> Config:
    """The configuration of the run at `run_path`, with another number of epochs if one is given.

    What the storage of a cluster has beyond the run folder is fetched first.
    """
    from maag.config.codec import override
    from maag.train.folder import RunFolder, open_run

    if cluster:
        from maag.train.launch.launch import fetch_run

        fetch_run(RunFolder(run_path), cluster)
    _, config = open_run(run_path)
    return override(config, {"optim.epochs": epochs}) if epochs else config


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
