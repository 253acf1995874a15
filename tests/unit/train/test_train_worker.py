"""What a worker does with what it hears while it trains; Ray Train and the board are fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.data.slices.shard import Shard
from maag.train.folder import RunFolder
from maag.train.launch.board import Leaving, Note, SoftLabelProgress
from maag.train.launch.reporter import Reporter
from maag.train.reports import StepReport
from maag.train.stopping import StopRequest
from maag.train.team import Team


class Member(Team):
    """The worker of a rank, of two."""

    def __init__(self, rank: int) -> None:
        self.shard = Shard(rank, 2)


class FakeBoard:
    """A board without an actor; `ray.get` of its answers gives the reason to stop, of which there is none."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.put = self

    def remote(self, note: Note) -> str:
        self.notes.append(note)
        return "an answer"


def step_report(step: int) -> StepReport:
    return StepReport(step=step, epoch=1, epochs=1, lr=1e-3, losses={}, steps_per_second=1.0, seconds_left=1.0)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_state_is_saved_once_when_a_node_is_about_to_leave(
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
    # Its leader speaks for the team.
    assert board.notes == ([step_report(1), step_report(2), Leaving(2), step_report(3)] if rank == 0 else [])


def test_a_stop_is_heard_while_teachers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, "Ctrl-C"])
    monkeypatch.setattr("ray.get", lambda answer: next(answers))
    board, stop = FakeBoard(), StopRequest()
    reporter = Reporter(RunFolder(tmp_path), board, stop, Member(0))
    heard = []
    for done in (1, 2, 3):
        reporter.on_soft_labels(done, 3)
        heard.append(stop.interrupted)
    # Each answer is read with the next note, so that asking does not wait for it.
    assert heard == [None, None, "Ctrl-C"]
    assert board.notes == [SoftLabelProgress(1, 3), SoftLabelProgress(2, 3), SoftLabelProgress(3, 3)]
