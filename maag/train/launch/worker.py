"""The training function of each worker; Ray Train calls it on every worker, and again after a failure."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from maag.config import codec
from maag.data.splits import Split
from maag.storage import write_json
from maag.train.fit import fit
from maag.train.folder import RunFolder
from maag.train.launch.gathering import gathered
from maag.train.launch.notes import NoteBoard, Saved, Started
from maag.train.launch.recipe import Recipe, prepare_together
from maag.train.launch.reporter import Reporter
from maag.train.launch.run_files import step_of, write_files
from maag.train.second_stage.teachers import write_teachers
from maag.train.stopping import StopRequest
from maag.train.team import team_of_workers


def train_on_worker(given: dict[str, Any]) -> dict[str, Any]:
    """Train as one worker of a team.

    Args:
        given: `recipe`, a Recipe; `board`, the NoteBoard; `state`, a reference to the FolderFiles of a run to
            continue, or None; and `state_step`, its step.

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
        nodes = gathered(ray.get_runtime_context().get_node_id())
        reporter = Reporter(run, given["board"], stop, team, saves_validations=recipe.saves_validations)
        reporter.send(Started(step=step, workers=team.size, nodes=len(set(nodes))))
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
            teacher_progress=reporter.on_soft_labels,
        )
        # Once more, now with the final weights and the result.
        reporter.on_checkpoint(outcome.steps)
        return asdict(replace(outcome, run=""))


def _stored(board: NoteBoard) -> ray.train.Checkpoint | None:
    """The checkpoint to continue from; the same on every worker.

    Ray Train's controller learns of a checkpoint up to two seconds after it was stored, and workers may fail in
    between; the board learns of it at once.
    """
    saved: Saved | None = gathered(board.furthest())[0]
    known = ray.train.get_checkpoint()
    if saved is None or (known is not None and step_of(known) >= saved.step):
        return known
    return saved.checkpoint


def _restore(run: RunFolder, stored: ray.train.Checkpoint | None, state: Any, state_step: int) -> int:
    """Fill the run folder from the checkpoint or state with the higher step, if there is any; return that step."""
    stored_step = step_of(stored) if stored else -1
    if stored and stored_step >= state_step:
        stored.to_directory(str(run.path))
        return stored_step
    if state is None:
        return 0
    write_files(run, ray.get(state))
    return state_step
