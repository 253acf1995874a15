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
    """A path that is not empty, as that of a script's variable that is not set: the folder here is not meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if value == "":
            self.fail("it is empty; write '.' for the folder here", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = NamedPath(path_type=Path, file_okay=False)
ANY_PATH = NamedPath(path_type=Path)
PLACE = NamedPath(readable=False)
"""A path or a URI, as text."""


def dataset_option(command: Command) -> Command:
    """`--dataset NAME`."""
    return click.option("--dataset", type=click.Choice(DATASETS), required=True, help="Which data set's layout.")(
        command
    )


def scribbles_option(command: Command) -> Command:
    """`--scribbles SOURCE`, once for each rater."""
    return click.option(
        "--scribbles",
        multiple=True,
        metavar="DIR|simulated:STYLE[:RATIO]|own",
        help="Scribbles from this folder, drawn from the masks, or the data set's own; repeat it for several raters.  "
        "[default: own; simulated where the published data have none]",
    )(command)


def data_option(command: Command) -> Command:
    """`--data DIR`."""
    return click.option("--data", "data_dir", type=FOLDER, help="Its folder.  [default: $MAAG_DATA/NAME or data/NAME]")(
        command
    )


def config_options(command: Command) -> Command:
    """`--preset`, `--config` and `--set`."""
    command = click.option(
        "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting; `maag config show`."
    )(command)
    command = click.option(
        "--config", "config_file", type=CONFIG_FILE, help="Start from this config.json instead of a preset."
    )(command)
    return click.option(
        "--preset",
        type=click.Choice(("paper", "fast", "best", "best-fast")),
        help="Where settings start: paper (as published), best, and the same two for a CPU: fast, best-fast.  "
        "[default: paper]",
    )(command)


def device_option(command: Command) -> Command:
    """`--device auto|cpu|cuda`."""
    return click.option(
        "--device",
        "device_name",
        type=click.Choice(("auto", "cpu", "cuda")),
        default="auto",
        show_default=True,
        help="auto takes CUDA where there is one.",
    )(command)


def backend_option(command: Command) -> Command:
    """`--backend auto|tensorrt|onnx|torch`."""
    return click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="auto runs an exported model with its TensorRT engine where there is one for a GPU here, else with ONNX "
        "Runtime, and anything else with PyTorch.",
    )(command)


class WorkerCount(click.ParamType[tuple[int, int]]):
    """`N`, or `MIN:MAX` for a number that follows the cluster: the fewest and the most."""

    name = "N|MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Click's."""
        if isinstance(value, tuple):
            return value
        fewest, colon, most = value.partition(":")
        if not fewest.isdecimal() or (colon and not most.isdecimal()) or not 1 <= int(fewest) <= int(most or fewest):
            self.fail(f"{value!r} is neither a number from 1, as 4, nor a range, as 2:8", param, ctx)
        return int(fewest), int(most or fewest)


def wait_option(command: Command) -> Command:
    """`--wait`."""
    return click.option(
        "--wait",
        "wait_minutes",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="MINUTES",
        help="How long an autoscaler may take to start nodes for the workers.  [default: 0]",
    )(command)


def address_option(command: Command) -> Command:
    """`--address`."""
    return click.option(
        "--address", help="Of a running Ray cluster whose nodes see the data at the same path; auto: the one here."
    )(command)


def cluster_options(command: Command) -> Command:
    """`--workers`, `--address`, `--storage` and `--wait`."""
    command = wait_option(command)
    command = click.option(
        "--storage",
        metavar="DIR|URI",
        help="Where checkpoints go that all nodes can reach: a shared folder, or s3://BUCKET/PREFIX.  [default: --out]",
    )(command)
    command = address_option(command)
    return click.option(
        "--workers",
        type=WorkerCount(),
        help="Processes that train together, over Ray Train, with a GPU each where there are any; MIN:MAX: as many as "
        "there is room for.  [default: without Ray]",
    )(command)


def split_file_option(command: Command) -> Command:
    """`--split-file` of what trains."""
    return click.option(
        "--split-file", type=SPLIT_FILE, help="Which patients do what: a split.json.  [default: data.split]"
    )(command)


def resume_options(what: str) -> Callable[[Command], Command]:
    """`--resume` and `--resume-if-there`."""

    def add(command: Command) -> Command:
        command = click.option(
            "--resume-if-there",
            is_flag=True,
            help=f"Continue the {what} in --out if there is one there or in --storage, else begin it: for jobs that a "
            "cluster starts again.",
        )(command)
        return click.option(
            "--resume", is_flag=True, help=f"Continue the {what} in --out, or the newest one of this data set."
        )(command)

    return add


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="End with one line of JSON on standard output.")(
        command
    )
