"""The listener of a worker: it sends checkpoints to Ray Train, and other reports to the board."""

from __future__ import annotations

import uuid
from typing import Any

import ray
import ray.train

from maag.train.folder import RunFolder
from maag.train.launch.notes import Leaving, Note, NoteBoard, Saved, SoftLabelProgress
from maag.train.launch.run_files import step_of
from maag.train.reports import EpochReport, StepReport
from maag.train.stopping import StopRequest
from maag.train.team import Team


class Reporter:
    """A listener that sends checkpoints to Ray Train, and other reports to the board."""

    def __init__(
        self, run: RunFolder, board: NoteBoard, stop: StopRequest, team: Team, *, saves_validations: bool = False
    ) -> None:
        self._run = run
        self._board = board
        self._stop = stop
        self._team = team
        self._saves_validations = saves_validations
        self._answer: Any = None
        self._leaving = False

    def send(self, note: Note) -> None:
        """Send a note, if this worker leads, and receive requests to stop."""
        if not self._team.leads:
            return
        if self._answer is not None and (reason := ray.get(self._answer)) is not None:
            self._stop.interrupt(reason)
        # The answer is read at the next note, so that training does not wait for it.
        self._answer = self._board.put(note)

    def on_soft_labels(self, done: int, total: int) -> None:
        """Send the progress of the teachers' predictions."""
        self.send(SoftLabelProgress(done, total))

    def on_step(self, report: StepReport) -> None:
        """Send the report, and have the state saved when a node of the team is about to be preempted."""
        self.send(report)
        if not self._leaving and ray.train.get_preemption_info() is not None:
            self._leaving = self._stop.save_requested = True
            self.send(Leaving(report.step))

    def on_epoch(self, report: EpochReport) -> None:
        """Send the report."""
        self.send(report)
        if self._saves_validations and report.validation is not None:
            self._stop.save_requested = True

    def on_checkpoint(self, step: int) -> None:
        """Save the run folder to the storage as a checkpoint of Ray Train, all or nothing."""
        if not self._team.leads:
            ray.train.report({"step": step})
            return
        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(str(self._run.path)),
            checkpoint_dir_name=f"step-{step:08d}-{uuid.uuid4().hex[:6]}",
        )
        stored = ray.train.get_checkpoint()
        if stored is not None:
            # Not `step`: Ray Train skips reports while a group is failing.
            self.send(Saved(stored, step_of(stored)))
