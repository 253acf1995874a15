"""One trial: the `fit` of `maag train` in a Ray worker, which reports to the search."""

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
    """What all trials of a search have in common; plain types, so that it can be sent to any node."""

    base: dict[str, Any]
    """The configuration that samples are applied to, from `codec.to_dict`."""
    data_dir: str
    scribbles: tuple[str, ...]
    data_digest: str
    """Required digest of the data on every node."""
    cache_root: str
    split: dict[str, Any]
    trials_dir: str
    """Parent of the trials' run folders; local to each node, if there is a `storage`."""
    device: str
    threads: int
    """Of PyTorch, on a CPU."""
    exchange: bool
    """Trials may continue from each other's states with other settings, in population based training."""
    workers: int = 1
    """Of each trial; several train with Ray Train."""
    storage: str | None = None
    """Storage that all nodes can reach, for the trials' states; None: the nodes share the run folders."""


def run_trial(sample: Mapping[str, Any], plan: TrialPlan) -> None:
    """Train the base configuration with `sample`, continuing from its own run folder if there is one.

    Raises the errors of `prepare_the_same` and `fit`; Ray retries, then records the error, and the search continues.
    """
    from maag.data.splits import Split
    from maag.train.folder import RunFolder, create_run

    config = codec.override(codec.from_dict(plan.base), sample)
    run = RunFolder(Path(plan.trials_dir) / str(ray_tune.get_context().get_trial_id()))
    if run.config.exists() and (plan.exchange or read_json(run.config) == codec.document(config)):
        write_json(run.config, codec.document(config))
    else:
        # A folder of another sample: the search was killed before it saved this trial's sample, and drew a new one; or
        # it was killed while removing such a folder.
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
            # The state may be another trial's.
            other_settings=plan.exchange,
        )


def prepare_the_same(config: Config, plan: TrialPlan) -> PreparedData:
    """The prepared data of this node.

    Raises:
        DataError: its digest differs from that of the plan.
    """
    from maag.data.cache.prepared import require_same_data
    from maag.data.cache.preparing import prepare

    prepared = prepare(Path(plan.data_dir), config.data, Path(plan.cache_root), plan.scribbles)
    require_same_data(prepared, plan.data_digest, f"{plan.data_dir} on node {ray.util.get_node_ip_address()}")
    return prepared


def note_shortfalls_of(weights: Path, plan: TrialPlan, notify: Callable[[str], None]) -> None:
    """Store the shortfalls of the best trial's model in its `weights`, if they are not there yet.

    `fit` does it at the end of a run, which trials that are stopped early, or whose state was reported before the end,
    do not reach. It takes a while, so `notify` receives a sentence first. The results of the search are valid without
    it: Ctrl-C, missing data, full memory or a damaged file lead to another sentence, not to an error.
    """
    import torch

    from maag import checkpoint
    from maag.data.splits import Split
    from maag.train.shortfalls import note_shortfalls

    without = f"{weights} has no correction of its expected Dice"
    try:
        trained = checkpoint.load_segmentor(weights)
        if "shortfalls" in trained.info:
            return
        notify("measuring how the best model's expected Dice compares with the real one; Ctrl-C skips this")
        device = torch.device(plan.device if torch.cuda.is_available() else "cpu")
        prepared = prepare_the_same(trained.config, plan)
        note_shortfalls(weights, prepared, Split.from_dict(plan.split).val, device)
    except KeyboardInterrupt:
        notify(f"{without}, because Ctrl-C interrupted the measurement; --resume repeats it")
    except (MaagError, RuntimeError, MemoryError) as error:  # PyTorch's error for full memory is a RuntimeError
        notify(f"{without}, because it could not be measured: {first_line(error)}; --resume repeats it")


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
    # By settings too, because a resumed search may give the name of a lost trial to another sample.
    storage = plan.storage and f"{plan.storage}/{codec.digest(config)}"
    cluster = ClusterPlan(fewest=plan.workers, most=plan.workers, address=None, storage=storage, gpu=gpu)
    train_on_cluster(
        recipe,
        cluster,
        Room(cpus=1, gpus=int(gpu)),
        run,
        listener=reporter,
        notify=lambda sentence: None,  # a search shows trials, not their workers
        stop=stop,
        resume=True,
    )


def best_config(plan: TrialPlan, sample: Mapping[str, Any]) -> Config:
    """The whole configuration of a trial."""
    return codec.override(codec.from_dict(plan.base), sample)
