"""Applies the workers' notes on the user's machine: to the run folder and the listener."""

from __future__ import annotations

from collections.abc import Callable

from maag.train.folder import RunFolder
from maag.train.launch.notes import Leaving, Lost, Note, Saved, SoftLabelProgress, Started, Waiting
from maag.train.launch.run_files import follow
from maag.train.reports import EpochReport, Listener, StepReport


class Follower:
    """Applies notes to the run folder and the listener, and reports events in sentences to `notify`."""

    def __init__(self, run: RunFolder, listener: Listener, notify: Callable[[str], None]) -> None:
        self._run = run
        self._listener = listener
        self._notify = notify
        self._group: Started | None = None

    def take(self, note: Note) -> None:
        """Apply one note."""
        if isinstance(note, StepReport):
            self._listener.on_step(note)
        elif isinstance(note, EpochReport):
            self._listener.on_epoch(note)
        elif isinstance(note, Saved):
            follow(self._run, note.checkpoint)
            self._listener.on_checkpoint(note.step)
        elif isinstance(note, Leaving):
            self._notify(f"A node is about to be preempted: the state is being saved at step {note.step}")
        elif isinstance(note, SoftLabelProgress):
            if note.done == note.total:
                self._notify(f"The teachers have predicted the first worker's {note.total} cases")
        elif isinstance(note, Lost):
            self._notify(f"Workers failed: {note.reason}; continuing from the last checkpoint as soon as there is room")
        elif isinstance(note, Waiting):
            self._notify("The cluster has no room for the workers now: waiting")
        else:
            self._notify(_sentence(note, again=self._group is not None))
            self._group = note


def _sentence(group: Started, *, again: bool) -> str:
    workers = f"{group.workers} worker{'s' if group.workers > 1 else ''}"
    nodes = f"{group.nodes} node{'s' if group.nodes > 1 else ''}"
    begin = "Continuing" if again else "Training"
    return f"{begin} with {workers} on {nodes}, from step {group.step}"
