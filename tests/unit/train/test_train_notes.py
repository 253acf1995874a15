"""Notes that workers of a cluster leave on a board, and the messages to the user about them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.train import Checkpoint

from maag.storage import write_json
from maag.train.folder import RunFolder
from maag.train.launch.board import Board
from maag.train.launch.follower import Follower
from maag.train.launch.notes import Leaving, Lost, NoteBoard, Saved, SoftLabelProgress, Started, Waiting
from maag.train.reports import EpochReport, StepReport


class RecordingListener:
    """A listener that records the saved steps."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def on_step(self, report: StepReport) -> None:
        raise AssertionError

    def on_epoch(self, report: EpochReport) -> None:
        raise AssertionError

    def on_checkpoint(self, step: int) -> None:
        self.saved.append(step)


def test_the_follower_reports_every_event_and_updates_the_run_folder(tmp_path: Path) -> None:
    stored = tmp_path / "step-00000012-abc"
    write_json(stored / "config.json", {"new": True})
    write_json(stored / "checkpoints" / "x.json", {})
    run = RunFolder(tmp_path / "run")
    write_json(run.config, {"new": False})
    messages: list[str] = []
    recording = RecordingListener()
    follower = Follower(run, recording, messages.append)
    for note in (
        Started(0, 2, 1),
        Lost("a worker died"),
        Waiting(),
        Started(12, 1, 1),
        Leaving(20),
        SoftLabelProgress(1, 2),
        SoftLabelProgress(2, 2),
        Saved(Checkpoint.from_directory(str(stored)), 12),
    ):
        follower.take(note)
    assert messages == [
        "Training with 2 workers on 1 node, from step 0",
        "Workers failed: a worker died; continuing from the last checkpoint as soon as there is room",
        "The cluster has no room for the workers now: waiting",
        "Continuing with 1 worker on 1 node, from step 12",
        "A node is about to be preempted: the state is being saved at step 20",
        "The teachers have predicted the first worker's 2 cases",
    ]
    assert recording.saved == [12]
    assert "true" in run.config.read_text()
    assert (run.path / "checkpoints" / "x.json").exists()


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> NoteBoard:
    """A board without an actor."""
    here = Board()
    monkeypatch.setattr("ray.get", lambda answer: answer)
    return NoteBoard(
        SimpleNamespace(
            **{name: SimpleNamespace(remote=getattr(here, name)) for name in ("put", "take", "furthest", "stop")}
        )
    )


def test_a_board_keeps_notes_until_they_are_taken(board: NoteBoard) -> None:
    assert board.put(Lost("one")) is None
    board.stop("SIGINT")
    assert board.put(Lost("two")) == "SIGINT"
    assert board.take() == [Lost("one"), Lost("two")]
    assert board.take() == []


def test_a_board_remembers_the_furthest_checkpoint_after_its_note_was_taken(board: NoteBoard, tmp_path: Path) -> None:
    assert board.furthest() is None
    early, late = (Saved(Checkpoint(str(tmp_path / f"step-{step:08d}-abc")), step) for step in (2, 4))
    board.put(late)
    board.put(early)
    board.take()
    furthest = board.furthest()
    assert furthest is not None
    assert (furthest.step, furthest.checkpoint.path) == (4, late.checkpoint.path)
