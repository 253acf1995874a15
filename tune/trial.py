"""One trial: the very `fit` of `maag train`, in a Ray worker, that tells the search how it goes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune as ray_tune

from maag.config import codec
from maag.config.schema import Config
from maag.errors import MaagError, first_line
from maag.storage import read_json, write_json
from maag.train.stopping import StopRequest
from tune.failures import remembering_failure
from tune.schedule import SCHEDULE, note_settings
from tune.trial_reports import TrialReporter, epochs_done, inherit_state

if TYPE_CHECKING:
    from maag.data.cache.prepared import PreparedData
    from maag.train.folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """What all trials of a search have in common; plain enough to travel to any node."""

    base: dict[str, Any]
    """The configuration that samples are laid over, as `codec.to_dict` gives it."""
    data_dir: str
    scribbles: tuple[str, ...]
    data_digest: str
    """Of what every node must find there."""
    cache_root: str
    split: dict[str, Any]
    trials_dir: str
    """Where each trial has its run folder; on every node its own, if there is a `storage`."""
    device: str
    threads: int
    """Of PyTorch, on a CPU."""
    exchange: bool
    """Trials may go on from each other's states, with other settings."""
    workers: int = 1
    """Of each trial; several train over Ray Train."""
    storage: str | None = None
    """Where states go that all nodes can reach; None: the run folders are such places."""


def run_trial(sample: Mapping[str, Any], plan: TrialPlan) -> None:
    """Train the base configuration with `sample`, going on from its own run folder if there is one.

    Raises what `prepare_the_same` and `fit` raise; Ray tries again, then records it, and the search goes on.
    """
    from maag.data.splits import Split
    from maag.train.folder import RunFolder, create_run

    config = codec.override(codec.from_dict(plan.base), sample)
    run = RunFolder(Path(plan.trials_dir) / str(ray_tune.get_context().get_trial_id()))
    if run.config.exists() and (plan.exchange or read_json(run.config) == codec.document(config)):
        write_json(run.config, codec.document(config))
    else:
        # The search may have been killed before it wrote this trial's sample down, and have drawn another one; or while
        # what that one had left was removed.
        shutil.rmtree(run.path, ignore_errors=True)
        create_run(run.path, config, Split.from_dict(plan.split))
    inherit_state(run)
    if plan.exchange:
        note_settings(run.path / SCHEDULE, epochs_done(run), sample)
    stop = StopRequest()
    reporter = TrialReporter(
        run,
        stop,
        hands_over=plan.exchange or plan.storage is not None,
        # A trial of one worker is ended by Ray Tune itself.
        ends_itself=plan.workers > 1,
    )
    train = _train_here if plan.workers == 1 else _train_on_workers
    train(config, plan, run, reporter, stop)


def _train_here(config: Config, plan: TrialPlan, run: RunFolder, reporter: TrialReporter, stop: StopRequest) -> None:
    import torch

    from maag.data.splits import Split
    from maag.train.fit import fit

    if plan.device == "cpu":
        torch.set_num_threads(plan.threads)
    prepared = prepare_the_same(config, plan)
    with remembering_failure(run.path, config):
        fit(
            config,
            prepared,
            Split.from_dict(plan.split),
            run,
            device=torch.device(plan.device),
            listener=reporter,
            stop=stop,
            resume=True,
            # Its state may be another trial's, now or since the search was killed.
            other_settings=plan.exchange,
        )


def prepare_the_same(config: Config, plan: TrialPlan) -> PreparedData:
    """The data as this node has them.

    Raises:
        DataError: they are not those that the other trials train on.
    """
    from maag.data.cache.prepared import require_same_data
    from maag.data.cache.preparing import prepare

    prepared = prepare(Path(plan.data_dir), config.data, Path(plan.cache_root), plan.scribbles)
    require_same_data(prepared, plan.data_digest, f"{plan.data_dir} on node {ray.util.get_node_ip_address()}")
    return prepared


def note_shortfalls_of(weights: Path, plan: TrialPlan, tell: Callable[[str], None]) -> None:
    """Note in the best trial's `weights` how far its model overrates itself, where that is not noted yet.

    A run does it at its end, to which a trial does not come that was stopped early or is followed by the states that it
    hands over. As it takes a while, `tell` is given a sentence first. A search has found what it has found whatever
    comes of this: Ctrl-C, data that are gone by then, a full memory and a damaged file are a sentence more, no errors.
    """
    import torch

    from maag import checkpoint
    from maag.data.splits import Split
    from maag.train.shortfalls import note_shortfalls

    without = f"{weights} does not say how far it overrates itself"
    try:
        trained = checkpoint.load_segmentor(weights)
        if "shortfalls" in trained.info:
            return
        tell("the best model is asked how far it overrates itself, on all validation cases; Ctrl-C now leaves that out")
        device = torch.device(plan.device if torch.cuda.is_available() else "cpu")
        prepared = prepare_the_same(trained.config, plan)
        note_shortfalls(weights, prepared, Split.from_dict(plan.split).val, device)
    except KeyboardInterrupt:
        tell(f"{without}, as Ctrl-C came before it was known; --resume asks again")
    except (MaagError, RuntimeError, MemoryError) as error:  # PyTorch's of a full memory is a RuntimeError
        tell(f"{without}, as it could not be asked: {first_line(error)}; --resume asks again")


def _train_on_workers(
    config: Config, plan: TrialPlan, run: RunFolder, reporter: TrialReporter, stop: StopRequest
) -> None:
    from maag.train.launch.launch import ClusterPlan, train_on_cluster
    from maag.train.launch.recipe import Recipe
    from maag.train.launch.room import Room

    gpu = plan.device == "cuda"
    recipe = Recipe(
        config=codec.to_dict(config),
        split=plan.split,
        data_dir=plan.data_dir,
        data_digest=plan.data_digest,
        scribbles=plan.scribbles,
        shapes=None,
        cache_root=plan.cache_root,
        threads=plan.threads,
        other_settings=plan.exchange,
        saves_validations=True,
    )
    # By settings too: a search that was killed may give a trial's name to another sample.
    storage = plan.storage and f"{plan.storage}/{codec.digest(config)}"
    cluster = ClusterPlan(fewest=plan.workers, most=plan.workers, address=None, storage=storage, gpu=gpu)
    train_on_cluster(
        recipe,
        cluster,
        Room(cpus=1, gpus=int(gpu)),
        run,
        listener=reporter,
        tell=lambda sentence: None,  # a search shows trials, not their workers
        stop=stop,
        resume=True,
    )


def best_config(plan: TrialPlan, sample: Mapping[str, Any]) -> Config:
    """The whole configuration of a trial."""
    return codec.override(codec.from_dict(plan.base), sample)
