"""What each of several processes that train together does, for test_team.py."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from maag.checkpoint import load_segmentor, save_segmentor
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData, open_prepared
from maag.data.slices.batches import TeacherView, TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.splits import Split
from maag.errors import MaagError
from maag.train.fit import fit
from maag.train.folder import create_run
from maag.train.reports import Listeners
from maag.train.second_stage.soft_labels import predict_soft_labels
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.stopping import StopRequest
from maag.train.team import ALONE, Team, TorchTeam
from maag.train.validate import Validator

CPU = torch.device("cpu")


def take_steps(config: Config, prepared: PreparedData, split: Split, team: Team, steps: int) -> dict[str, Any]:
    """The first steps' losses, and the gradients and statistics after the first.

    In double precision, for a deep network's gradients amplify rounding.
    """
    torch.set_default_dtype(torch.float64)
    state = TrainState(config, CPU, team)
    state.set_rates(1e-3, 1e-3)
    batches = TrainingBatches(supervise(prepared, split, config), config, CPU, team.shard)
    losses, after_first = [], {}
    for step in range(steps):
        state.noise.manual_seed(step)
        torch.set_default_dtype(torch.float32)
        batch = batches.at(step)
        torch.set_default_dtype(torch.float64)
        others = None if batch.unlabelled is None else batch.unlabelled.double()
        untouched = None if batch.teacher_view is None else TeacherView(*(part.double() for part in batch.teacher_view))
        batch = batch._replace(images=batch.images.double(), unlabelled=others, teacher_view=untouched)
        found = update(state, batch, config)
        state.progress.step += 1
        losses.append({name: float(team.mean(loss)) for name, loss in found.items()})
        if step == 0:
            networks = {"segmentor": state.segmentor, "teacher": state.teacher, "discriminator": state.discriminator}
            for name, network in networks.items():
                if network is not None:
                    team.average_statistics(network)
                    tensors = {key: value.grad for key, value in network.named_parameters()}
                    tensors |= {key: value for key, value in network.named_buffers() if "running" in key}
                    after_first |= {
                        f"{name}.{key}": value.clone() for key, value in tensors.items() if value is not None
                    }
    weights = torch.cat([parameter.detach().flatten() for parameter in state.eval_segmentor.parameters()])
    return {"losses": losses, "after_first": after_first, "weights": weights}


def validate(config: Config, prepared: PreparedData, team: Team) -> dict[str, Any]:
    """Dice of a fresh segmentor on all patients, on one patient, and with fitted offsets."""
    state = TrainState(config, CPU, team)
    all_patients = Validator(prepared, prepared.patient_ids, config.data, CPU, team).dice(state.segmentor)
    one = Validator(prepared, prepared.patient_ids[:1], config.data, CPU, team).dice(state.segmentor)
    fitted = Validator(prepared, prepared.patient_ids, config.data, CPU, team, fit_offsets=True).dice(state.segmentor)
    return {"all": all_patients.per_class, "one": one.per_class, "offsets": fitted.offsets, "fitted": fitted.per_class}


def ask_teachers(config: Config, prepared: PreparedData, split: Split, team: Team, folder: Path) -> dict[str, Any]:
    """Soft labels of two segmentors for the training images."""
    models = [TrainState(codec.override(config, {"train.seed": seed}), CPU).segmentor for seed in (1, 2)]
    soft_labels = predict_soft_labels(models, prepared, supervise(prepared, split, config), config, CPU, team, folder)
    return {"soft_labels": torch.from_numpy(soft_labels.copy())}


def prepare_apart(
    what: str,
    config: Config,
    split: Split,
    prepared: PreparedData,
    directory: Path,
    folder: Path,
    team: Team,
    rank: int,
) -> dict[str, Any]:
    """The error of each worker if only the first has the data or a teacher, or if all have different teachers."""
    from maag.train.launch.recipe import Recipe, prepare_together

    model = folder / f"teacher-{rank}.safetensors"
    if what == "prepare other teachers" or (what == "prepare a teacher" and team.leads):
        segmentor = TrainState(codec.override(config, {"train.seed": rank}), CPU).segmentor
        save_segmentor(model, config, segmentor.state_dict(), {"split_digest": split.digest})
    recipe = Recipe(
        config={},
        split={},
        data_dir=str(directory if team.leads or what != "prepare" else folder / "nowhere"),
        data_digest="other" if what == "prepare other data" else None,
        scribbles=(),
        shapes=None,
        cache_root=str(prepared.directory.parent),
        threads=1,
        teachers=(str(model),) if "teacher" in what else (),
    )
    try:
        prepare_together(recipe, config, split)
    except MaagError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    return {}


def work(rank: int, size: int, folder: Path) -> None:
    """Do the task in `folder`/task.json as one of `size` workers; writes `folder`/result-RANK.pt.

    A process may work any number of times.
    """
    torch.set_num_threads(1)
    if size == 1:
        torch.save(do_task(rank, folder, ALONE), folder / f"result-{rank}.pt")
        return
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    try:
        torch.save(do_task(rank, folder, TorchTeam(CPU)), folder / f"result-{rank}.pt")
    finally:
        distributed.destroy_process_group()


def do_task(rank: int, folder: Path, team: Team) -> dict[str, Any]:
    """The result of one worker."""
    task = json.loads((folder / "task.json").read_text())
    config, split = codec.from_dict(task["config"]), Split.from_dict(task["split"])
    prepared = open_prepared(Path(task["prepared"]))
    if task["do"] == "steps":
        try:
            return take_steps(config, prepared, split, team, steps=4)
        finally:
            torch.set_default_dtype(torch.float32)
    if task["do"].startswith("prepare"):
        return prepare_apart(task["do"], config, split, prepared, Path(task["data"]), folder, team, rank)
    if task["do"] == "validate":
        return validate(config, prepared, team)
    if task["do"] == "ask teachers":
        return ask_teachers(config, prepared, split, team, folder)
    run = create_run(folder / f"run-{rank}", config, split)
    outcome = fit(
        config,
        prepared,
        split,
        run,
        device=CPU,
        listener=Listeners(),
        stop=StopRequest(),
        resume=False,
        team=team,
    )
    result = {"ending": outcome.ending, "steps": outcome.steps, "final": outcome.final_dice}
    if task["do"] == "fit and look" and team.leads:
        result["weights"] = load_segmentor(run.final).segmentor.state_dict()
    return result
