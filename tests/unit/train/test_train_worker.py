"""How a worker reacts to preemption and to requests to stop; Ray Train and the board are fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.data.slices.shard import Shard
from maag.train.folder import RunFolder
from maag.train.launch.notes import Leaving, Note, NoteBoard, SoftLabelProgress
from maag.train.launch.reporter import Reporter
from maag.train.reports import StepReport
from maag.train.stopping import StopRequest
from maag.train.team import Team


class Member(Team):
    """The worker of a rank, out of two."""

    def __init__(self, rank: int) -> None:
        self.shard = Shard(rank, 2)


class FakeBoard(NoteBoard):
    """A board without an actor; `ray.get` of its answers gives the reason to stop, if there is one."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    def put(self, note: Note) -> str:
        self.notes.append(note)
        return "an answer"


def step_report(step: int) -> StepReport:
    return StepReport(step=step, epoch=1, epochs=1, lr=1e-3, losses={}, steps_per_second=1.0, seconds_left=1.0)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_state_is_saved_once_when_a_node_is_about_to_be_preempted(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving: list[str] = []
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: leaving or None)
    monkeypatch.setattr("ray.get", lambda answer: None)
    board, stop = FakeBoard(), StopRequest()
    reporter = Reporter(RunFolder(tmp_path), board, stop, Member(rank))
    reporter.on_step(step_report(1))
    assert not stop.save_requested
    leaving.append("a node")
    reporter.on_step(step_report(2))
    assert stop.save_requested
    stop.save_requested = False  # by the save
    reporter.on_step(step_report(3))
    assert not stop.save_requested
    # Only the leader reports for the team.
    assert board.notes == ([step_report(1), step_report(2), Leaving(2), step_report(3)] if rank == 0 else [])


def test_a_stop_request_is_received_during_teacher_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, "Ctrl-C"])
    monkeypatch.setattr("ray.get", lambda answer: next(answers))
    board, stop = FakeBoard(), StopRequest()
    reporter = Reporter(RunFolder(tmp_path), board, stop, Member(0))
    received = []
    for done in (1, 2, 3):
        reporter.on_soft_labels(done, 3)
        received.append(stop.interrupted)
    # Each answer is read with the next note, so that predicting does not wait for it.
    assert received == [None, None, "Ctrl-C"]
    assert board.notes == [SoftLabelProgress(1, 3), SoftLabelProgress(2, 3), SoftLabelProgress(3, 3)]
