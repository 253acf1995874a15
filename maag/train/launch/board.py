"""Notes between the workers, Ray Train's controller and the process that shows progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.train import Checkpoint
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maag.train.reports import EpochReport, Live


@dataclass(frozen=True, slots=True)
class Started:
    """A group of workers is ready to train."""

    step: int
    """Where it goes on from."""
    workers: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A group of workers ended before its time."""

    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no room for a group now."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole run folder is in the storage."""

    checkpoint: Checkpoint
    step: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """A node announced its end; the state is being saved."""

    step: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Finished models were asked of some of the leader's part of the cases."""

    done: int
    total: int


Note: TypeAlias = Live | EpochReport | Started | Lost | Waiting | Saved | Leaving | Asked


class Board:
    """An actor that keeps notes until they are taken, and whether a stop was asked for."""

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._stop: str | None = None
        self._furthest: Saved | None = None

    def put(self, note: Note) -> str | None:
        """Leave a note for the driver; returns why to stop, if that was asked for."""
        self._notes.append(note)
        if isinstance(note, Saved) and (self._furthest is None or note.step >= self._furthest.step):
            self._furthest = note
        return self._stop

    def take(self) -> list[Note]:
        """All notes since the last time, oldest first."""
        notes, self._notes = self._notes, []
        return notes

    def furthest(self) -> Saved | None:
        """The checkpoint that is furthest of all that notes told of, taken or not."""
        return self._furthest

    def stop(self, reason: str) -> None:
        """Ask the workers to save and end."""
        self._stop = reason


def start_board() -> Any:
    """A Board on this node, so that it outlives the workers' nodes; a Ray actor handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
