"""Messages from the workers and Ray Train's controller to the driver, the process that shows progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.train import Checkpoint
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maag.train.reports import EpochReport, StepReport


@dataclass(frozen=True, slots=True)
class Started:
    """A group of workers is ready to train."""

    step: int
    """From which it continues."""
    workers: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A group of workers failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The cluster has no room for a group now."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The run folder was saved to the storage."""

    checkpoint: Checkpoint
    step: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """A node will be preempted; the state is being saved."""

    step: int


@dataclass(frozen=True, slots=True)
class SoftLabelProgress:
    """Finished models have predicted some of the leader's cases."""

    done: int
    total: int


Note: TypeAlias = StepReport | EpochReport | Started | Lost | Waiting | Saved | Leaving | SoftLabelProgress


class Board:
    """An actor that queues notes for the driver, and passes its request to stop to the workers."""

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._stop: str | None = None
        self._furthest: Saved | None = None

    def put(self, note: Note) -> str | None:
        """Queue a note for the driver; return the reason to stop, if a stop was requested."""
        self._notes.append(note)
        if isinstance(note, Saved) and (self._furthest is None or note.step >= self._furthest.step):
            self._furthest = note
        return self._stop

    def take(self) -> list[Note]:
        """Remove and return all queued notes, oldest first."""
        notes, self._notes = self._notes, []
        return notes

    def furthest(self) -> Saved | None:
        """The Saved note of the highest step so far, taken or not."""
        return self._furthest

    def stop(self, reason: str) -> None:
        """Request that the workers save and end."""
        self._stop = reason


def start_board() -> Any:
    """Start a Board on this node, so that it outlives the workers' nodes; returns a Ray actor handle."""
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=this_node).remote()
