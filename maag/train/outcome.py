"""How a run ended, and `result.json`, where that is kept."""

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
    """Mean validation Dice on the training grid, of the best validation; None before the first."""
    best_epoch: int | None
    final_dice: float | None
    """The same of the last weights; None when the run was interrupted."""
    steps_per_second: float
    peak_memory_mib: float
    config_digest: str
    split_digest: str
    data_digest: str


def write_outcome(run: RunFolder, outcome: Outcome) -> None:
    """Write `result.json`. Raises StorageError."""
    write_json(run.result, {"format_version": RESULT_FORMAT_VERSION, **asdict(outcome)})


def with_earlier_steps(outcome: Outcome, run: RunFolder) -> Outcome:
    """Of a run that had ended, when no step was taken that could be timed: with what its `result.json` says of steps.

    The same as given where there is none, or a damaged one, for it is about to be written anew.
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
    """Have `peak_memory_mib` count from now, as far as the device can: its process may have trained before."""
    if device.type == "cuda":
        # Where CUDA has not begun, there are no peaks, and torch refuses.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float:
    """Highest memory of this run in MiB: the device's allocations on CUDA, the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes.
    return kilobytes / 2**20 if sys.platform == "darwin" else kilobytes / 2**10
