"""Notes from the workers and Ray Train's controller to the driver, the process that shows progress."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.train import Checkpoint

from maag.train.launch.board import start_board
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


class NoteBoard:
    """Notes on a Board, which any process of the cluster can put and take.

    Args:
        board: the handle of the actor.
    """

    def __init__(self, board: Any) -> None:
        self._board = board

    def put(self, note: Note) -> Any:
        """Queue a note for the driver; returns a reference to the reason to stop, None if no stop was requested."""
        return self._board.put.remote(pickle.dumps(note), note.step if isinstance(note, Saved) else None)

    def take(self) -> list[Note]:
        """Remove and return all queued notes, oldest first."""
        return [pickle.loads(note) for note in ray.get(self._board.take.remote())]

    def furthest(self) -> Saved | None:
        """The Saved note of the highest step so far, taken or not."""
        note = ray.get(self._board.furthest.remote())
        return None if note is None else pickle.loads(note)

    def stop(self, reason: str) -> None:
        """Request that the workers save and end."""
        self._board.stop.remote(reason)


def start_note_board() -> NoteBoard:
    """Start a Board on this node, so that it outlives the workers' nodes."""
    return NoteBoard(start_board())
