"""The driver of a training run over a Ray cluster: the process that the user started."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from maag.train.folder import RunFolder
from maag.train.launch.connection import connected
from maag.train.launch.follower import Follower
from maag.train.launch.notes import NoteBoard, start_note_board
from maag.train.launch.recipe import Recipe
from maag.train.launch.recovery import TRIES_FOR_ROOM, Recovery, give_up
from maag.train.launch.remote import absolute_storage, newest_checkpoint, upload
from maag.train.launch.room import Room, require_room, takes_gpu, threads_of
from maag.train.launch.run_files import OWN_STORAGE, files_of, follow, saved_step, step_of
from maag.train.launch.worker import train_on_worker
from maag.train.outcome import Outcome, write_outcome
from maag.train.reports import Listener
from maag.train.stopping import StopRequest

_LONGEST_WAIT_S = 2 * 60 * 60
"""Timeout of collective operations. All workers wait until the slowest node has prepared its data, which may take far
longer than on a node that has it in its cache. With Ray's default of half an hour the worker would count as lost, and
would start again in vain. Ray notices a dead worker at once; but a worker that hangs, in NCCL say, keeps all GPUs idle
for this long, because the timeout holds for training steps too. A second process group for this wait alone would need
gloo to connect the nodes in addition to NCCL."""
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterPlan:
    """Where to train, and with how many workers."""

    fewest: int
    most: int
    """If more than `fewest`, workers join and leave as the cluster grows and shrinks."""
    address: str | None
    """Of a running cluster; None starts one here."""
    storage: str | None
    """A folder that all nodes share, or a URI such as s3://bucket/prefix; None: in the run folder."""
    gpu: bool | None
    """Whether each worker takes a GPU; None: if the cluster has any."""
    wait_minutes: float = 0.0
    """How long to wait for nodes that an autoscaler starts."""


def launch(
    recipe: Recipe,
    plan: ClusterPlan,
    run: RunFolder,
    *,
    listener: Listener,
    notify: Callable[[str], None],
    stop: StopRequest,
    resume: bool,
) -> Outcome:
    """Train on the cluster; the run folder here follows each checkpoint, and ends up as `run/` in `plan.storage`, too.

    Args:
        recipe: what to train.
        plan: where to train.
        run: the run folder on this machine, with its configuration and split.
        listener: receives progress reports.
        notify: receives sentences about workers that start and fail.
        stop: may request an end; the state is saved first.
        resume: continue from the run folder or from the storage, whichever has the higher step.

    Raises:
        ConfigError: the cluster cannot be reached, or has no room.
        MaagError: an error on a worker that the user must fix.
        TrainingError: the cluster failed.
        StorageError: the run folder cannot be written.
    """
    with connected(plan.address):
        gpu = takes_gpu(plan.gpu, plan.fewest, plan.wait_minutes)
        room = require_room(plan.fewest, plan.most, gpu=gpu, wait_minutes=plan.wait_minutes)
        recipe = replace(recipe, threads=threads_of(room.cpus))
        return train_on_cluster(recipe, plan, room, run, listener=listener, notify=notify, stop=stop, resume=resume)


def train_on_cluster(
    recipe: Recipe,
    plan: ClusterPlan,
    room: Room,
    run: RunFolder,
    *,
    listener: Listener,
    notify: Callable[[str], None],
    stop: StopRequest,
    resume: bool,
) -> Outcome:
    """`launch` in a process that is already connected to the cluster, with `room` for each worker."""
    board = start_note_board()
    recovery = Recovery(board)
    starts = _starts(board, recovery)
    state, state_step = None, -1
    if resume:
        state_step = saved_step(run)
        state = ray.put(files_of(run)) if state_step >= 0 else None
    storage, name = _place(plan, run)
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={"recipe": recipe, "board": board, "state": state, "state_step": state_step},
        torch_config=TorchConfig(timeout_s=_LONGEST_WAIT_S),
        scaling_config=_scaling(plan, room),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            # The newest may still be copied to this machine when the next one is stored.
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=-1, controller_failure_limit=-1 if starts else TRIES_FOR_ROOM),
            callbacks=[recovery, *starts],
        ),
    )
    result = _fit(trainer, board, Follower(run, listener, notify), stop)
    if result.checkpoint is not None:
        follow(run, result.checkpoint)
    outcome = replace(Outcome(**result.return_value), run=str(run.path))
    write_outcome(run, outcome)
    if plan.storage is None:
        shutil.rmtree(run.path / OWN_STORAGE)  # all of it is in the run folder now
    else:
        upload(run.path, files_of(run), f"{storage}/{name}/run")
    return outcome


def fetch_run(run: RunFolder, plan: ClusterPlan) -> None:
    """Update the run folder from its storage, for a resume on another machine. Raises StorageError."""
    newest = stored_checkpoint(run, plan)
    if newest is not None and step_of(newest) > saved_step(run):
        follow(run, newest)


def stored_checkpoint(run: RunFolder, plan: ClusterPlan) -> Checkpoint | None:
    """The newest checkpoint of a run of this name in the storage; see `newest_checkpoint`."""
    return newest_checkpoint("/".join(_place(plan, run)))


def _fit(trainer: TorchTrainer, board: NoteBoard, follower: Follower, stop: StopRequest) -> Result:
    """Run `trainer.fit()` in a thread, and take notes in this one, which receives signals."""
    ended: list[Result | BaseException] = []

    def fit() -> None:
        try:
            ended.append(trainer.fit())
        except BaseException as error:  # raised below, in the main thread
            ended.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    asked = False
    while thread.is_alive():
        if stop.interrupted and not asked:
            board.stop(stop.interrupted)
            asked = True
        for note in board.take():
            follower.take(note)
        thread.join(_LOOK_EVERY_S)
    for note in board.take():
        follower.take(note)
    (end,) = ended
    if isinstance(end, Result):
        return end
    give_up(end)


def _starts(board: NoteBoard, recovery: Recovery) -> list[Any]:
    """The Starts callback; empty with a version of Ray whose internals differ, where Ray's own limit applies."""
    try:
        from maag.train.launch.starts import Starts
    except ImportError:
        return []
    return [Starts(board, recovery)]


def _scaling(plan: ClusterPlan, room: Room) -> ScalingConfig:
    return ScalingConfig(
        num_workers=plan.fewest if plan.fewest == plan.most else (plan.fewest, plan.most),
        use_gpu=room.gpus > 0,
        resources_per_worker={"CPU": room.cpus, **({"GPU": room.gpus} if room.gpus else {})},
    )


def _place(plan: ClusterPlan, run: RunFolder) -> tuple[str, str]:
    """The storage, and the run's name in it."""
    if plan.storage is None:
        return absolute_storage(str(run.path)), OWN_STORAGE
    return absolute_storage(plan.storage), run.path.name
