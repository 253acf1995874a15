"""What each worker of a cluster does; Ray Train calls it on every one of them, and again after a loss."""

from __future__ import annotations

import tempfile
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train
import ray.train.torch
import torch
from torch import distributed

from maag import checkpoint
from maag.checkpoint import TrainedSegmentor
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache import prepare
from maag.data.prepared import PreparedData, require_same
from maag.data.shapes import prepare_shapes, require_others
from maag.data.splits import Split
from maag.errors import CheckpointError, DataError, MaagError
from maag.storage import write_json
from maag.train.fit import fit
from maag.train.folder import RunFolder
from maag.train.launch.board import Asked, Leaving, Note, Saved, Started
from maag.train.reports import EpochReport, Live
from maag.train.second_stage.teachers import open_teachers, write_teachers
from maag.train.stopping import StopRequest
from maag.train.team import Team, team_of_workers

FolderFiles = dict[str, bytes]
"""The files of a run folder by their path in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What all workers need to train; plain enough to travel to any node."""

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
    """In seconds since the epoch."""
    other_settings: bool = False
    """A checkpoint may be of other settings; see `fit`."""
    teachers: tuple[str, ...] = ()
    """Paths of finished models that teach, on every node."""
    saves_validations: bool = False
    """Save after every validation, whatever it costs."""
    data_digest: str | None = None
    """Of what every node must find in `data_dir`; None: what they agree on."""


class Material(NamedTuple):
    """What a worker trains on."""

    prepared: PreparedData
    shapes: PreparedData | None
    teachers: tuple[TrainedSegmentor, ...]


def train_on_worker(given: dict[str, Any]) -> dict[str, Any]:
    """Train as one of the team.

    Args:
        given: `recipe`, a Recipe; `board`, the actor for notes; `state`, a reference to the FolderFiles of a run to go
            on with, or None, and `state_step`, how far that is.

    Returns:
        The Outcome as a dict.

    Raises:
        MaagError: the same on every worker, whichever it came from.
    """
    recipe: Recipe = given["recipe"]
    device = ray.train.torch.get_device()
    team = team_of_workers(device)
    if device.type == "cpu":
        torch.set_num_threads(recipe.threads)
    config, split = codec.from_dict(recipe.config), Split.from_dict(recipe.split)
    material = prepare_together(recipe, config, split)

    with tempfile.TemporaryDirectory(prefix="maag-run-") as folder:
        run = RunFolder(Path(folder))
        step = _restore(run, _stored(given["board"]), given["state"], given["state_step"])
        write_json(run.config, codec.document(config))
        write_json(run.split, split.to_dict())
        if material.teachers:
            write_teachers(run.teachers, material.teachers)
        remaining = None if recipe.deadline is None else max(0.0, recipe.deadline - time.time()) / 60
        stop = StopRequest(remaining)
        nodes = _gathered(ray.get_runtime_context().get_node_id())
        reporter = Reporter(run, given["board"], stop, team, saves_validations=recipe.saves_validations)
        reporter.tell(Started(step=step, workers=team.size, nodes=len(set(nodes))))
        outcome = fit(
            config,
            material.prepared,
            split,
            run,
            device=device,
            listener=reporter,
            stop=stop,
            resume=run.last.exists(),
            shapes=material.shapes,
            teachers=material.teachers,
            other_settings=recipe.other_settings,
            team=team,
            said=reporter.on_lessons,
        )
        # Once more, now with the final weights and the result.
        reporter.on_checkpoint(outcome.steps)
        return asdict(replace(outcome, run=""))


class Reporter:
    """A listener that passes on what a worker hears: checkpoints to Ray Train, the rest to the board."""

    def __init__(
        self, run: RunFolder, board: Any, stop: StopRequest, team: Team, *, saves_validations: bool = False
    ) -> None:
        self._run = run
        self._board = board
        self._stop = stop
        self._team = team
        self._saves_validations = saves_validations
        self._answer: Any = None
        self._leaving = False

    def tell(self, note: Note) -> None:
        """Leave a note, if this worker leads, and hear whether to stop."""
        if not self._team.leads:
            return
        if self._answer is not None and (reason := ray.get(self._answer)) is not None:
            self._stop.ask(reason)
        # Its answer is read next time, so that training does not wait for it.
        self._answer = self._board.put.remote(note)

    def on_lessons(self, done: int, total: int) -> None:
        """Pass it on, and hear whether to stop meanwhile."""
        self.tell(Asked(done, total))

    def on_live(self, live: Live) -> None:
        """Pass it on, and have the state saved when a node of the team is about to leave."""
        self.tell(live)
        if not self._leaving and ray.train.get_preemption_info() is not None:
            self._leaving = self._stop.save_is_asked = True
            self.tell(Leaving(live.step))

    def on_epoch(self, report: EpochReport) -> None:
        """Pass it on."""
        self.tell(report)
        if self._saves_validations and report.validation is not None:
            self._stop.save_is_asked = True

    def on_checkpoint(self, step: int) -> None:
        """Put the run folder as it stands into the storage, as a checkpoint of Ray Train: whole or not at all."""
        if not self._team.leads:
            ray.train.report({"step": step})
            return
        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(str(self._run.path)),
            checkpoint_dir_name=f"step-{step:08d}-{uuid.uuid4().hex[:6]}",
        )
        stored = ray.train.get_checkpoint()
        if stored is not None:
            # Not `step`: Ray Train skips a report while a group falls apart.
            self.tell(Saved(stored, step_of(stored)))


def prepare_together(recipe: Recipe, config: Config, split: Split) -> Material:
    """The data and teachers, on every worker or on none: what one of them cannot read, all of them refuse.

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
            require_same(prepared, recipe.data_digest, recipe.data_dir)
        if recipe.shapes:
            name, folder = recipe.shapes
            shapes = prepare_shapes(name, Path(folder), config.data, cache)
            require_others(prepared, split, shapes)
        teachers = open_teachers([Path(model) for model in recipe.teachers], config, split)
    except MaagError as error:
        problem = type(error)(f"on node {ray.util.get_node_ip_address()}: {error}")
    problems = [found for found in _gathered(problem) if found is not None]
    if problems:
        raise problems[0]
    assert prepared is not None
    digests = _gathered(prepared.digest)
    if len(set(digests)) > 1:
        raise DataError(
            f"{recipe.data_dir}: the nodes have different data there (digests {sorted(set(digests))}); share the "
            "folder, or copy the same files to all of them"
        )
    models = _gathered([teacher.digest for teacher in teachers])
    if any(others != models[0] for others in models):
        raise CheckpointError(
            f"{', '.join(recipe.teachers)}: the nodes have different teachers there; share the folder, or copy the "
            "same files to all of them"
        )
    return Material(prepared, shapes, teachers)


def _gathered(own: Any) -> list[Any]:
    """What each worker has, in the order of their ranks."""
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def _stored(board: Any) -> ray.train.Checkpoint | None:
    """The checkpoint to go on from; the same on every worker.

    Ray Train's controller hears of a checkpoint up to two seconds after it was stored, and the workers may be lost in
    between; the board was told at once.
    """
    told: Saved | None = _gathered(ray.get(board.furthest.remote()))[0]
    known = ray.train.get_checkpoint()
    if told is None or (known is not None and step_of(known) >= told.step):
        return known
    return told.checkpoint


def _restore(run: RunFolder, stored: ray.train.Checkpoint | None, state: Any, state_step: int) -> int:
    """Fill the run folder from the checkpoint that is furthest, if there is any, and say its step."""
    stored_step = step_of(stored) if stored else -1
    if stored and stored_step >= state_step:
        stored.to_directory(str(run.path))
        return stored_step
    if state is None:
        return 0
    files: FolderFiles = ray.get(state)
    for name, content in files.items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(content)
    return state_step


def step_of(stored: ray.train.Checkpoint) -> int:
    """How far training was when this checkpoint of ours was stored."""
    return int(Path(stored.path).name.split("-")[1])


def saved_step(run: RunFolder) -> int:
    """How far the state in a run folder is; -1 when there is none. Raises CheckpointError."""
    if not run.last.exists():
        return -1
    _, state = checkpoint.load_state(run.last, torch.device("cpu"))
    return int(state["progress"]["step"])
