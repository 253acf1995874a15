"""The recipe that all workers receive, and the data and teachers that each loads by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray

from maag.checkpoint import TrainedSegmentor
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData, require_same_data
from maag.data.cache.preparing import prepare
from maag.data.slices.shapes import prepare_shapes, require_other_patients
from maag.data.splits import Split
from maag.errors import CheckpointError, DataError, MaagError
from maag.train.launch.gathering import gathered
from maag.train.second_stage.teachers import open_teachers


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What all workers need to train; plain types, so that it can be sent to any node."""

    config: dict[str, Any]
    split: dict[str, Any]
    data_dir: str
    """On every node."""
    scribbles: tuple[str, ...]
    shapes: tuple[str, str] | None
    """Layout and folder of other patients whose masks the discriminator sees."""
    cache_root: str
    threads: int
    """Of PyTorch, on a CPU."""
    deadline: float | None = None
    """Unix time in seconds."""
    other_settings: bool = False
    """Accept a checkpoint with other settings; see `fit`."""
    teachers: tuple[str, ...] = ()
    """Paths of finished models that teach, on every node."""
    saves_validations: bool = False
    """Save after every validation, whatever it costs."""
    data_digest: str | None = None
    """Required digest of the data in `data_dir`; None: the nodes need only agree."""


class Material(NamedTuple):
    """What a worker trains on."""

    prepared: PreparedData
    shapes: PreparedData | None
    teachers: tuple[TrainedSegmentor, ...]


def prepare_together(recipe: Recipe, config: Config, split: Split) -> Material:
    """Load the data and teachers on every worker; if one of them fails, all do.

    Raises:
        MaagError: the same on every worker; it names the node.
    """
    problem: MaagError | None = None
    prepared = shapes = None
    teachers: tuple[TrainedSegmentor, ...] = ()
    try:
        cache = Path(recipe.cache_root)
        prepared = prepare(Path(recipe.data_dir), config.data, cache, recipe.scribbles)
        if recipe.data_digest is not None:
            require_same_data(prepared, recipe.data_digest, recipe.data_dir)
        if recipe.shapes:
            name, folder = recipe.shapes
            shapes = prepare_shapes(name, Path(folder), config.data, cache)
            require_other_patients(prepared, split, shapes)
        teachers = open_teachers([Path(model) for model in recipe.teachers], config, split)
    except MaagError as error:
        problem = type(error)(f"on node {ray.util.get_node_ip_address()}: {error}")
    problems = [found for found in gathered(problem) if found is not None]
    if problems:
        raise problems[0]
    assert prepared is not None
    digests = gathered(prepared.digest)
    if len(set(digests)) > 1:
        raise DataError(
            f"{recipe.data_dir}: the nodes have different data there (digests {sorted(set(digests))}); share the "
            "folder, or copy the same files to all nodes"
        )
    models = gathered([teacher.digest for teacher in teachers])
    if any(others != models[0] for others in models):
        raise CheckpointError(
            f"{', '.join(recipe.teachers)}: the nodes have different teachers there; share the folder, or copy the "
            "same files to all nodes"
        )
    return Material(prepared, shapes, teachers)
