"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from maag.cli.json_file import CONFIG_FILE, SPLIT_FILE
from maag.data.catalog import READERS

Command = TypeVar("Command", bound=Callable[..., Any])

DATASETS = tuple(READERS)
BACKENDS = ("auto", "tensorrt", "onnx", "torch")


class NamedPath(click.Path):
    """A non-empty path: an unset variable of a script must not select the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if value == "":
            self.fail("the path is empty; use '.' for the current folder", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = NamedPath(path_type=Path, file_okay=False)
ANY_PATH = NamedPath(path_type=Path)
PLACE = NamedPath(readable=False)
"""A path or a URI, as text."""


def dataset_option(command: Command) -> Command:
    """`--dataset NAME`."""
    return click.option("--dataset", type=click.Choice(DATASETS), required=True, help="Layout of the data set.")(
        command
    )


def scribbles_option(command: Command) -> Command:
    """`--scribbles SOURCE`, once for each rater."""
    return click.option(
        "--scribbles",
        multiple=True,
        metavar="DIR|simulated:STYLE[:RATIO]|own",
        help="Scribbles from a folder, simulated from the masks, or the data set's own; repeat for several raters.  "
        "[default: own, or simulated if the data set was published without]",
    )(command)


def data_option(command: Command) -> Command:
    """`--data DIR`."""
    return click.option(
        "--data", "data_dir", type=FOLDER, help="Folder of the data set.  [default: $MAAG_DATA/NAME or data/NAME]"
    )(command)


def config_options(default: str = "paper") -> Callable[[Command], Command]:
    """`--preset`, which its help says is `default` unless given, `--config` and `--set`."""

    def decorate(command: Command) -> Command:
        command = click.option(
            "--set",
            "changes",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Change a setting; `maag config show` lists all.",
        )(command)
        command = click.option(
            "--config", "config_file", type=CONFIG_FILE, help="Start from this config.json instead of a preset."
        )(command)
        return click.option(
            "--preset",
            type=click.Choice(("paper", "fast", "best", "best-fast")),
            help="Initial settings: paper (as published), best, and their versions for CPUs, fast and best-fast.  "
            f"[default: {default}]",
        )(command)

    return decorate


def device_option(command: Command) -> Command:
    """`--device auto|cpu|cuda`."""
    return click.option(
        "--device",
        "device_name",
        type=click.Choice(("auto", "cpu", "cuda")),
        default="auto",
        show_default=True,
        help="auto uses CUDA if available.",
    )(command)


def backend_option(command: Command) -> Command:
    """`--backend auto|tensorrt|onnx|torch`."""
    return click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="auto runs an exported model with TensorRT if it has an engine and there is a GPU, else with ONNX "
        "Runtime, and other models with PyTorch.",
    )(command)


class WorkerCount(click.ParamType[tuple[int, int]]):
    """`N`, or `MIN:MAX` for as many as the cluster has room for: the minimum and the maximum."""

    name = "N|MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        low, colon, high = value.partition(":")
        if not low.isdecimal() or (colon and not high.isdecimal()) or not 1 <= int(low) <= int(high or low):
            self.fail(f"{value!r} is neither a number from 1, such as 4, nor a range, such as 2:8", param, ctx)
        return int(low), int(high or low)


def wait_option(command: Command) -> Command:
    """`--wait`."""
    return click.option(
        "--wait",
        "wait_minutes",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="MINUTES",
        help="How long to wait for an autoscaler to start nodes for the workers.  [default: 0]",
    )(command)


def address_option(command: Command) -> Command:
    """`--address`."""
    return click.option(
        "--address",
        help="Address of a running Ray cluster whose nodes see the data at the same path; auto: the cluster of this "
        "machine.",
    )(command)


def cluster_options(command: Command) -> Command:
    """`--workers`, `--address`, `--storage` and `--wait`."""
    command = wait_option(command)
    command = click.option(
        "--storage",
        metavar="DIR|URI",
        help="Where checkpoints go, reachable from all nodes: a shared folder, or s3://BUCKET/PREFIX.  "
        "[default: --out]",
    )(command)
    command = address_option(command)
    return click.option(
        "--workers",
        type=WorkerCount(),
        help="Number of Ray Train workers, each with a GPU if the cluster has any; MIN:MAX: as many as there is room "
        "for.  [default: no Ray]",
    )(command)


def split_file_option(command: Command) -> Command:
    """`--split-file` of commands that train."""
    return click.option(
        "--split-file",
        type=SPLIT_FILE,
        help="Train, validation and test patients: a split.json.  [default: data.split]",
    )(command)


def resume_options(what: str) -> Callable[[Command], Command]:
    """`--resume` and `--resume-if-there`."""

    def add(command: Command) -> Command:
        command = click.option(
            "--resume-if-there",
            is_flag=True,
            help=f"Continue the {what} in --out if there is one there or in --storage, else start it: for jobs that a "
            "cluster restarts.",
        )(command)
        return click.option(
            "--resume", is_flag=True, help=f"Continue the {what} in --out, or the newest one on this data set."
        )(command)

    return add


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="End with one line of JSON on standard output.")(
        command
    )
