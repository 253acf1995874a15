"""What a search is asked for: from the options of `maag tune` to plans."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maag.cli.resolving import absolute_source, pick_device
from maag.cli.tune_stored import read_stored, require_new, require_same_storage, write_stored
from maag.errors import ConfigError

if TYPE_CHECKING:
    from maag.config.schema import Config
    from maag.data.splits import Split
    from maag.train.launch.room import Node
    from tune.recorder import SearchPlan
    from tune.trial import TrialPlan

VALIDATIONS = 9
"""Of a trial that is not stopped early."""
OWN = ("train.validate_every", "train.validate_every_late", "train.patience")
"""Settings that a search makes itself: it compares trials by validations, and a trial that its patience ended, which
the search did not stop, could not win."""
_CPU_TRIALS, _GPU_TRIALS = 12, 32


@dataclass(frozen=True, slots=True)
class Machine:
    """What a search may use."""

    device: str
    """cpu or cuda."""
    gpus: int
    cores: int


def look_at(device_name: str, address: str | None, workers: int, wait_minutes: float) -> Machine:
    """This machine, or the cluster at `address`, for trials of `workers` each.

    Raises:
        ConfigError: CUDA is asked for and not here, or no node is there yet that would tell.
    """
    if address:
        from maag.train.launch.connection import connected
        from maag.train.launch.room import nodes_of_cluster

        with connected(address):
            return machine_of(nodes_of_cluster(), device_name, workers, wait_minutes)

    import torch

    device = pick_device(device_name).type
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(device, torch.cuda.device_count() if device == "cuda" else 0, cores)


def machine_of(nodes: list[Node], device_name: str, workers: int, wait_minutes: float) -> Machine:
    """What the nodes of a cluster have together. Raises ConfigError as `takes_gpu` does."""
    from maag.train.launch.room import takes_gpu

    wanted = {"auto": None, "cpu": False, "cuda": True}[device_name]
    cores = sum(node.cpus for node in nodes)
    if takes_gpu(wanted, workers, wait_minutes, lambda: nodes):
        return Machine("cuda", sum(node.gpus for node in nodes), cores)
    return Machine("cpu", 0, cores)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settled:
    """What a search is about, begun now or gone on with."""

    base: Config
    """Of all trials."""
    scribbles: tuple[str, ...]
    data_digest: str
    split: Split
    space: Sequence[str]
    """Names of the settings that are searched."""
    settings: Mapping[str, Any]
    """The options that say how."""


def make_plans(
    path: Path,
    config: Config | None,
    directory: Path,
    scribbles: tuple[str, ...],
    machine: Machine,
    split_file: Path | None,
    said: dict[str, Any],
    *,
    held: Collection[str] = (),
    resume: bool,
) -> tuple[SearchPlan, TrialPlan]:
    """What is searched and how; a resumed search takes all that is not said anew from its search.json.

    `held` are settings that all trials have as they stand.
    """
    from maag.config import codec
    from maag.data.cache.preparing import default_cache_root
    from maag.train.launch.room import threads_of
    from tune.recorder import SearchPlan
    from tune.space import SPACE
    from tune.trial import TrialPlan

    settled = _settle(path, config, directory, scribbles, machine, split_file, said, held=held, resume=resume)
    how = {name: value for name, value in settled.settings.items() if name != "workers"}
    workers = settled.settings["workers"]
    plan = SearchPlan(
        out=path,
        epochs=settled.base.optim.epochs,
        validations=VALIDATIONS,
        space={name: SPACE[name] for name in settled.space},
        gpus_per_trial=1.0 if machine.device == "cuda" else 0.0,
        **how,
    )
    trial = TrialPlan(
        base=codec.to_dict(settled.base),
        # Links are not followed here: each node has its own behind the same path.
        data_dir=os.path.abspath(directory),
        scribbles=tuple(absolute_source(word) for word in settled.scribbles),
        data_digest=settled.data_digest,
        cache_root=os.path.abspath(default_cache_root()),
        split=settled.split.to_dict(),
        # Without a storage the nodes share this folder; with one it is each node's own.
        trials_dir=os.path.abspath(path / "trials"),
        device=machine.device,
        threads=threads_of(max(1, machine.cores // (plan.at_once * workers))),
        exchange=plan.algorithm == "pbt",
        workers=workers,
        storage=None if plan.storage is None else f"{plan.storage}/{path.name}/workers",
    )
    return plan, trial


def _settle(
    path: Path,
    config: Config | None,
    directory: Path,
    scribbles: tuple[str, ...],
    machine: Machine,
    split_file: Path | None,
    said: dict[str, Any],
    *,
    held: Collection[str],
    resume: bool,
) -> _Settled:
    """Read the data, refuse what cannot be searched on them, and write a new search down in `path`."""
    from maag.cli.preparing import prepare_told
    from maag.config import codec
    from maag.data.cache.prepared import data_changed
    from maag.data.catalog import reader_of
    from maag.data.slices.supervision import supervise
    from maag.data.split_making import make_split
    from maag.train.folder import read_split
    from tune.space import SPACE, searched

    before = read_stored(path) if resume else {}
    if resume:
        require_same_storage(before, path, said["storage"])
    else:
        require_new(path, said["storage"])
    _require_apt_for_pbt(said)
    base = codec.from_dict(before["base"]) if config is None else config
    scribbles = tuple(before.get("scribbles", ())) if resume and not scribbles else scribbles
    prepared = prepare_told(directory, base.data, scribbles)
    if resume and data_changed(before.get("data_digest", ""), prepared.digest):
        raise ConfigError(
            f"{path}: the search was begun on other data (digest {before['data_digest']}, now {prepared.digest}), and "
            "trials of both cannot be compared; restore the data set and the scribbles, or start another search"
        )
    if resume:
        split = read_split(path / "split.json", prepared.patient_ids)
    elif split_file:
        split = read_split(split_file, prepared.patient_ids)
    else:
        split = make_split(prepared.patients, base.data, reader_of(base.data.dataset).split0)
    supervise(prepared, split, base)
    space = before.get("space", list(SPACE)) if resume else searched(base, held, on_the_way=said["algorithm"] == "pbt")
    settings = _settings(said, before, machine)
    if not resume:
        every = max(1, base.optim.epochs // VALIDATIONS)
        base = codec.override(base, dict(zip(OWN, (every, every, 0), strict=True)))
        facts = {"scribbles": list(map(absolute_source, scribbles)), "data_digest": prepared.digest, "space": space}
        write_stored(path, {**settings, **facts, "base": codec.to_dict(base)}, split)
    return _Settled(
        base=base, scribbles=scribbles, data_digest=prepared.digest, split=split, space=space, settings=settings
    )


def _require_apt_for_pbt(said: dict[str, Any]) -> None:
    if said["algorithm"] == "pbt" and (said["workers"] or 1) > 1:
        raise ConfigError("--search pbt: its trials train on one worker each; leave out --workers, or use --search tpe")
    if said["algorithm"] == "pbt" and said["trials"] == 1:
        raise ConfigError("--search pbt: one trial has no other to learn from; ask for more --trials")


def _settings(said: dict[str, Any], before: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """What options say, or `before`, the search that is resumed; the rest as it suits the machine."""
    from maag.train.launch.remote import absolute_storage

    settings = {name: before.get(name, value) for name, value in said.items()}
    defaults = {"trials": _GPU_TRIALS if machine.gpus else _CPU_TRIALS, "workers": 1}
    settings |= {name: settings[name] or value for name, value in defaults.items()}
    # For this time alone: the next may have less of it, and another cluster.
    settings |= {name: said[name] for name in ("max_minutes", "address", "wait_minutes")}
    if settings["storage"]:
        settings["storage"] = absolute_storage(settings["storage"])
    settings["at_once"] = settings["at_once"] or max(1, (machine.gpus or machine.cores) // settings["workers"])
    settings["at_once"] = min(settings["at_once"], settings["trials"])
    return settings
