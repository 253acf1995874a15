"""What the workers tell, passed on where the user sits: the run folder and the listener follow."""

from __future__ import annotations

from collections.abc import Callable

from maag.train.folder import RunFolder
from maag.train.launch.board import Asked, Leaving, Lost, Note, Saved, Started, Waiting
from maag.train.launch.run_files import follow
from maag.train.reports import EpochReport, Listener, Live


class Follower:
    """Takes the workers' notes: the run folder and the listener follow."""

    def __init__(self, run: RunFolder, listener: Listener, tell: Callable[[str], None]) -> None:
        self._run = run
        self._listener = listener
        self._tell = tell
        self._group: Started | None = None

    def take(self, note: Note) -> None:
        """One of them."""
        if isinstance(note, Live):
            self._listener.on_live(note)
        elif isinstance(note, EpochReport):
            self._listener.on_epoch(note)
        elif isinstance(note, Saved):
            follow(self._run, note.checkpoint)
            self._listener.on_checkpoint(note.step)
        elif isinstance(note, Leaving):
            self._tell(f"A node is about to be taken away: the state is being saved at step {note.step}")
        elif isinstance(note, Asked):
            if note.done == note.total:
                self._tell(f"Teachers were asked of the first worker's part of the cases, {note.total}")
        elif isinstance(note, Lost):
            self._tell(f"Lost at work: {note.reason}; going on from the last checkpoint as soon as there is room")
        elif isinstance(note, Waiting):
            self._tell("The cluster has no room for the workers now: waiting for it")
        else:
            self._tell(_sentence(note, again=self._group is not None))
            self._group = note


def _sentence(group: Started, *, again: bool) -> str:
    workers = f"{group.workers} worker{'s' if group.workers > 1 else ''}"
    nodes = f"{group.nodes} node{'s' if group.nodes > 1 else ''}"
    begin = "Going on" if again else "Training"
    return f"{begin} with {workers} on {nodes}, from step {group.step}"
