"""`maag train`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
    split_file_option,
)
from maag.cli.out_place import require_outside
from maag.cli.resolving import find_data, pick_device, refuse_idle_wait, resolve_config
from maag.cli.runs import RUNS, newest_run
from maag.cli.train_cluster import is_there, plan_cluster, require_new
from maag.cli.training import train
from maag.data.slices.shard import require_shares
from maag.errors import ConfigError

if TYPE_CHECKING:
    from maag.config.schema import Config
    from maag.train.launch.launch import ClusterPlan


@click.command("train")
@dataset_option
@data_option
@scribbles_option
@click.option(
    "--shapes",
    "shapes_dir",
    type=FOLDER,
    help="Another folder in the layout of the data set: the discriminator sees its masks instead of masks of --data.",
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
    help="A finished run or weights file of the same split as the teacher on unannotated pixels, instead of the "
    "average of this run's own weights; several are averaged. Sets teacher.confidence=0 and teacher.ramp=0 in presets.",
)
@click.option("--out", type=FOLDER, help="The run's folder.  [default: runs/NAME-PRESET-TIME]")
@config_options()
@click.option("--epochs", type=click.IntRange(min=1), help="Same as --set optim.epochs=N, which it overrides.")
@click.option(
    "--max-time", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Stop after this time."
)
@cluster_options
@device_option
@split_file_option
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

    The run's folder holds config.json, split.json, metrics.jsonl, TensorBoard curves, and checkpoints: the best in
    validation, the final one, and the training state to resume from. Ctrl-C and SIGTERM save the state first.
    """
    from maag.cli.terminal import print_json, say, shell_command
    from maag.config.presets import FOR_CPUS, STUDENT

    if shapes_dataset and not shapes_dir:
        raise ConfigError(
            f"--shapes-dataset {shapes_dataset} is the layout of --shapes, which is not given; add --shapes DIR or "
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
                "--resume uses the run's own config.json and split.json: leave out --preset, --config, --set and "
                "--split-file"
            )
        run_path = out or newest_run(dataset)
        config = resumed_config(run_path, dataset, epochs, cluster)
    else:
        implied = [f"{name}={value}" for name, value in STUDENT.items()] if teachers and not config_file else []
        words = [*implied, *changes, *([f"optim.epochs={epochs}"] if epochs else [])]
        config = resolve_config(dataset, preset, config_file, words, directory)
        name = "custom" if config_file else preset or "paper"
        run_path = out or RUNS / f"{dataset}-{name}-{datetime.now():%Y%m%d-%H%M%S}"
        require_outside(out, directory, scribbles, shapes_dir)
        if cluster:
            require_new(run_path, cluster)
    if cluster:
        require_shares(cluster.fewest, config.optim.batch_size)  # before the cluster starts
    device = pick_device("cpu" if cluster else device_name)
    if not cluster and device.type == "cpu" and not resume and not config_file and preset not in FOR_CPUS:
        say("No GPU found: this preset would take hours to days; --preset best-fast is made for CPUs.")
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
        say(f"Next: {shell_command('evaluate', run_path, '--dataset', dataset, '--data', directory)}")
    if as_json:
        print_json(asdict(outcome))
    return 1 if outcome.ending == "interrupted" else 0


def resumed_config(run_path: Path, dataset: str, epochs: int | None, cluster: ClusterPlan | None = None) -> Config:
    """The configuration of the run at `run_path`, with `epochs` if given.

    Newer files in the storage of a cluster are fetched into the run folder first. Raises ConfigError if the run was
    trained on another data set than `dataset`.
    """
    from maag.config.codec import override
    from maag.train.folder import RunFolder, open_run

    if cluster:
        from maag.train.launch.launch import fetch_run

        fetch_run(RunFolder(run_path), cluster)
    _, config = open_run(run_path)
    if config.data.dataset != dataset:
        raise ConfigError(f"{run_path} trains on data set {config.data.dataset!r}, but --dataset is {dataset!r}")
    return override(config, {"optim.epochs": epochs}) if epochs else config
