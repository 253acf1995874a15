"""From the options of `maag tune` to the plans of a search and its trials."""

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
"""Validations of a trial that is not stopped early."""
OWN = ("train.validate_every", "train.validate_every_late", "train.patience")
"""Settings that the search sets itself: it compares trials by validations, and a trial ended by its own patience could
not win."""
_CPU_TRIALS, _GPU_TRIALS = 12, 32


@dataclass(frozen=True, slots=True)
class Machine:
    """Resources of a search."""

    device: str
    """`cpu` or `cuda`."""
    gpus: int
    cores: int


def inspect_machine(device_name: str, address: str | None, workers: int, wait_minutes: float) -> Machine:
    """Resources of this machine, or of the cluster at `address`, for trials of `workers` each.

    Raises:
        ConfigError: CUDA is requested and not available, or the cluster has no node yet to inspect.
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
    """Total resources of the nodes of a cluster. Raises ConfigError as `takes_gpu` does."""
    from maag.train.launch.room import takes_gpu

    wanted = {"auto": None, "cpu": False, "cuda": True}[device_name]
    cores = sum(node.cpus for node in nodes)
    if takes_gpu(wanted, workers, wait_minutes, lambda: nodes):
        return Machine("cuda", sum(node.gpus for node in nodes), cores)
    return Machine("cpu", 0, cores)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settled:
    """Inputs of a new or resumed search."""

    base: Config
    """Settings that all trials share."""
    scribbles: tuple[str, ...]
    data_digest: str
    split: Split
    space: Sequence[str]
    """Names of the settings that are searched."""
    settings: Mapping[str, Any]
    """Options of the search itself."""


def make_plans(
    path: Path,
    config: Config | None,
    directory: Path,
    scribbles: tuple[str, ...],
    machine: Machine,
    split_file: Path | None,
    options: dict[str, Any],
    *,
    held: Collection[str] = (),
    resume: bool,
) -> tuple[SearchPlan, TrialPlan]:
    """Plans of the search and of its trials; a resumed search takes options that are not given from its search.json.

    `held` are settings that stay fixed in all trials.
    """
    from maag.config import codec
    from maag.data.cache.preparing import default_cache_root
    from maag.train.launch.room import threads_of
    from tune.recorder import SearchPlan
    from tune.space import SPACE
    from tune.trial import TrialPlan

    settled = _settle(path, config, directory, scribbles, machine, split_file, options, held=held, resume=resume)
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
        # Links are not followed: each node may have its own behind the same path.
        data_dir=os.path.abspath(directory),
        scribbles=tuple(absolute_source(word) for word in settled.scribbles),
        data_digest=settled.data_digest,
        cache_root=os.path.abspath(default_cache_root()),
        split=settled.split.to_dict(),
        # Without a storage the nodes share this folder; with one each node has its own.
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
    options: dict[str, Any],
    *,
    held: Collection[str],
    resume: bool,
) -> _Settled:
    """Read the data, check that they can be searched on, and write search.json of a new search to `path`."""
    from maag.cli.preparing import prepare_and_report
    from maag.config import codec
    from maag.data.cache.prepared import data_changed
    from maag.data.catalog import reader_of
    from maag.data.slices.supervision import supervise
    from maag.data.split_making import make_split
    from maag.train.folder import read_split
    from tune.space import SPACE, searched

    before = read_stored(path) if resume else {}
    if resume:
        require_same_storage(before, path, options["storage"])
    else:
        require_new(path, options["storage"])
    _check_pbt(options)
    base = codec.from_dict(before["base"]) if config is None else config
    scribbles = tuple(before.get("scribbles", ())) if resume and not scribbles else scribbles
    prepared = prepare_and_report(directory, base.data, scribbles)
    if resume and data_changed(before.get("data_digest", ""), prepared.digest):
        raise ConfigError(
            f"{path}: the search was started on other data (digest {before['data_digest']}, now {prepared.digest}), "
            "and their trials cannot be compared; restore the data set and the scribbles, or start another search"
        )
    if resume:
        split = read_split(path / "split.json", prepared.patient_ids)
    elif split_file:
        split = read_split(split_file, prepared.patient_ids)
    else:
        split = make_split(prepared.patients, base.data, reader_of(base.data.dataset).split0)
    supervise(prepared, split, base)
    space = (
        before.get("space", list(SPACE)) if resume else searched(base, held, on_the_way=options["algorithm"] == "pbt")
    )
    settings = _settings(options, before, machine)
    if not resume:
        every = max(1, base.optim.epochs // VALIDATIONS)
        base = codec.override(base, dict(zip(OWN, (every, every, 0), strict=True)))
        facts = {"scribbles": list(map(absolute_source, scribbles)), "data_digest": prepared.digest, "space": space}
        write_stored(path, {**settings, **facts, "base": codec.to_dict(base)}, split)
    return _Settled(
        base=base, scribbles=scribbles, data_digest=prepared.digest, split=split, space=space, settings=settings
    )


def _check_pbt(options: dict[str, Any]) -> None:
    if options["algorithm"] == "pbt" and (options["workers"] or 1) > 1:
        raise ConfigError("--search pbt: its trials train on one worker each; leave out --workers, or use --search tpe")
    if options["algorithm"] == "pbt" and options["trials"] == 1:
        raise ConfigError("--search pbt: a single trial has no other to learn from; increase --trials")


def _settings(options: dict[str, Any], before: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """Options, replaced by those of `before`, the resumed search; unset ones get defaults for the machine."""
    from maag.train.launch.remote import absolute_storage

    settings = {name: before.get(name, value) for name, value in options.items()}
    defaults = {"trials": _GPU_TRIALS if machine.gpus else _CPU_TRIALS, "workers": 1}
    settings |= {name: settings[name] or value for name, value in defaults.items()}
    # These hold for this call only: the next may have another time limit or cluster.
    settings |= {name: options[name] for name in ("max_minutes", "address", "wait_minutes")}
    if settings["storage"]:
        settings["storage"] = absolute_storage(settings["storage"])
    settings["at_once"] = settings["at_once"] or max(1, (machine.gpus or machine.cores) // settings["workers"])
    settings["at_once"] = min(settings["at_once"], settings["trials"])
    return settings
