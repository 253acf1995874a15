"""Cluster options of `maag train`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from os.path import abspath
from pathlib import Path
from typing import TYPE_CHECKING

from maag.cli.resolving import absolute_source
from maag.errors import ConfigError

if TYPE_CHECKING:
    from maag.config.schema import Config
    from maag.data.splits import Split
    from maag.train.launch.launch import ClusterPlan
    from maag.train.launch.recipe import Recipe


def plan_cluster(
    workers: tuple[int, int], address: str | None, storage: str | None, device_name: str, wait_minutes: float
) -> ClusterPlan:
    """Where to train, from the options."""
    from maag.train.launch.launch import ClusterPlan

    gpu = {"auto": None, "cpu": False, "cuda": True}[device_name]
    return ClusterPlan(
        fewest=workers[0], most=workers[1], address=address, storage=storage, gpu=gpu, wait_minutes=wait_minutes
    )


def is_there(out: Path | None, cluster: ClusterPlan | None) -> bool:
    """Whether a run to resume exists in --out or in the storage. Raises ConfigError without --out."""
    from maag.train.folder import RunFolder

    if out is None:
        raise ConfigError("--resume-if-there: name the run with --out")
    if cluster:
        from maag.train.launch.launch import stored_checkpoint

        if stored_checkpoint(RunFolder(out), cluster) is not None:
            return True
    return RunFolder(out).config.exists()


def require_new(run_path: Path, cluster: ClusterPlan) -> None:
    """Raise ConfigError if the storage has a run of this name, which a new one would continue."""
    from maag.train.folder import RunFolder
    from maag.train.launch.launch import stored_checkpoint

    if stored_checkpoint(RunFolder(run_path), cluster) is not None:
        raise ConfigError(
            f"{cluster.storage or run_path} already holds a run named {run_path.name}; add --resume to continue it, or "
            "choose another --out"
        )


def recipe_of(
    config: Config,
    split: Split,
    directory: Path,
    scribbles: Sequence[str],
    shapes: tuple[str, Path] | None,
    max_time: float | None,
    teachers: Sequence[Path] = (),
) -> Recipe:
    """What every worker needs to know, with absolute paths.

    Links in them are not followed: on each node they may lead to a disk of its own.
    """
    from maag.config import codec
    from maag.data.cache.preparing import default_cache_root
    from maag.train.launch.recipe import Recipe

    return Recipe(
        config=codec.to_dict(config),
        split=split.to_dict(),
        data_dir=abspath(directory),
        scribbles=tuple(absolute_source(word) for word in scribbles),
        shapes=(shapes[0], abspath(shapes[1])) if shapes else None,
        cache_root=abspath(default_cache_root()),
        threads=1,
        deadline=None if max_time is None else time.time() + 60 * max_time,
        teachers=tuple(abspath(model) for model in teachers),
    )
