"""The actor that holds notes until the driver takes them, and passes its request to stop to the workers.

It only sees pickled notes, and this module imports neither PyTorch nor Ray Train, which would cost the actor's process
four seconds of CPU.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Board:
    """A queue of pickled notes; see `notes.NoteBoard`."""

    def __init__(self) -> None:
        self._notes: list[bytes] = []
        self._stop: str | None = None
        self._furthest: bytes | None = None
        self._furthest_step = -1

    def put(self, note: bytes, saved_step: int | None) -> str | None:
        """Queue a note, and its step if it is a Saved; return the reason to stop, if a stop was requested."""
        self._notes.append(note)
        if saved_step is not None and saved_step >= self._furthest_step:
            self._furthest, self._furthest_step = note, saved_step
        return self._stop

    def take(self) -> list[bytes]:
        """Remove and return all queued notes, oldest first."""
        notes, self._notes = self._notes, []
        return notes

    def furthest(self) -> bytes | None:
        """The Saved note of the highest step so far, taken or not."""
        return self._furthest

    def stop(self, reason: str) -> None:
        """Request that the workers save and end."""
        self._stop = reason


def start_board() -> Any:
    """Start a Board on this node; returns a Ray actor handle."""
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=this_node).remote()
