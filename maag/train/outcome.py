"""The outcome of a run, and `result.json`, which holds it."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict, dataclass, replace

import torch

from maag.errors import StorageError
from maag.storage import read_json, write_json
from maag.train.folder import RunFolder
from maag.train.loop import Ending

RESULT_FORMAT_VERSION = 1
_OF_STEPS = ("steps_per_second", "peak_memory_mib")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended; written to `result.json`."""

    ending: Ending
    run: str
    epochs_done: float
    steps: int
    seconds: float
    best_dice: float | None
    """Mean Dice of the best validation, on the training grid; None before the first."""
    best_epoch: int | None
    final_dice: float | None
    """Mean validation Dice of the final weights; None if the run was interrupted."""
    steps_per_second: float
    peak_memory_mib: float
    config_digest: str
    split_digest: str
    data_digest: str


def write_outcome(run: RunFolder, outcome: Outcome) -> None:
    """Write `result.json`. Raises StorageError."""
    write_json(run.result, {"format_version": RESULT_FORMAT_VERSION, **asdict(outcome)})


def with_earlier_steps(outcome: Outcome, run: RunFolder) -> Outcome:
    """The outcome of a run that took no step since its resume, with the speed and memory from its `result.json`.

    Unchanged if that file is missing or damaged, because it is about to be rewritten.
    """
    if not run.result.exists():
        return outcome
    try:
        earlier = read_json(run.result)
    except StorageError:
        return outcome
    if not isinstance(earlier, dict):
        return outcome
    return replace(outcome, **{name: earlier[name] for name in _OF_STEPS if name in earlier})


def begin_peak_memory(device: torch.device) -> None:
    """Reset `peak_memory_mib` on CUDA, as the process may have trained before; a CPU's peak cannot be reset."""
    if device.type == "cuda":
        # torch refuses to reset the peak before CUDA is initialised.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory in MiB: the device's allocations on CUDA, the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes.
    return kilobytes / 2**20 if sys.platform == "darwin" else kilobytes / 2**10
