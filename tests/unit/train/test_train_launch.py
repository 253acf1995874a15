"""What needs no cluster: room, what the user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from ray.train import Checkpoint
from ray.train.torch import TorchConfig

from maag.cli.main import commands
from maag.cli.options import WorkerCount
from maag.errors import ConfigError
from maag.storage import write_json
from maag.train.folder import RunFolder
from maag.train.launch import launch
from maag.train.launch.board import Board, Leaving, Lost, Saved, SoftLabelProgress, Started, Waiting
from maag.train.launch.connection import connected
from maag.train.launch.follower import Follower
from maag.train.launch.launch import ClusterPlan
from maag.train.launch.recipe import Recipe
from maag.train.launch.room import Node, Room, places, require_room, room_for, takes_gpu
from maag.train.reports import EpochReport, StepReport
from maag.train.stopping import StopRequest

NODES = st.lists(st.builds(Node, cpus=st.integers(0, 20), gpus=st.integers(0, 4)), max_size=6)


@given(NODES, st.integers(1, 12), st.booleans())
def test_workers_get_as_many_cpus_as_they_all_can_have(nodes: list[Node], workers: int, gpu: bool) -> None:
    room = room_for(nodes, workers, gpu=gpu)
    assert room.cpus >= 1
    assert room.gpus == gpu
    if places(nodes, Room(1, gpu)) >= workers:
        assert places(nodes, room) >= workers
        assert places(nodes, Room(room.cpus + 1, gpu)) < workers


def test_a_gpu_belongs_to_one_worker() -> None:
    assert places([Node(16, 2), Node(16, 0), Node(1, 4)], Room(1, 1)) == 3


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "sentence"),
    [
        ([Node(0, 0), Node(2, 0)], 3, False, "room for 2 (2 nodes with 2 CPUs and 0 GPUs"),
        ([Node(64, 1)], 2, True, "room for 1 (1 nodes with 64 CPUs and 1 GPUs; each worker needs a GPU and a CPU)"),
        ([], 1, False, "room for 0"),
    ],
)
def test_what_cannot_be_placed_is_refused(nodes: list[Node], workers: int, gpu: bool, sentence: str) -> None:
    with pytest.raises(ConfigError, match="--workers") as refused:
        require_room(workers, workers, gpu=gpu, wait_minutes=0, look=lambda: nodes)
    assert sentence in str(refused.value)


def test_whether_gpus_are_taken_is_not_guessed_before_there_are_nodes() -> None:
    assert takes_gpu(True, 2, 5, look=lambda: [])
    assert takes_gpu(None, 2, 5, look=lambda: [Node(4, 1)])
    assert not takes_gpu(None, 2, 5, look=lambda: [Node(2, 0)])
    assert not takes_gpu(None, 2, 0, look=lambda: [])
    assert not takes_gpu(False, 2, 5, look=lambda: [])
    with pytest.raises(
        ConfigError, match=r"--wait 5: whether workers take GPUs is unknown .* --device cuda or --device cpu"
    ):
        takes_gpu(None, 2, 5, look=lambda: [Node(1, 0)])


def test_nodes_that_come_in_time_are_waited_for() -> None:
    sights = iter([[Node(1, 0)], [Node(1, 0)], [Node(1, 0), Node(4, 0)]])
    asked: list[int] = []
    room = require_room(
        2, 3, gpu=False, wait_minutes=1, look=lambda: next(sights), ask=lambda workers, gpu: asked.append(workers),
        pause_s=0,
    )  # fmt: skip
    assert room == Room(1, 0)
    assert asked == [3, 3, 0]  # or an autoscaler would keep them for ever


@pytest.mark.parametrize("ending", [ConfigError, KeyboardInterrupt])
def test_nodes_that_do_not_come_are_not_asked_for_any_longer(ending: type[BaseException]) -> None:
    asked: list[int] = []

    def look() -> list[Node]:
        if asked and ending is KeyboardInterrupt:
            raise KeyboardInterrupt
        return [Node(1, 0)]

    with pytest.raises(ending):
        require_room(
            2, 3, gpu=False, wait_minutes=0.001, look=look, ask=lambda workers, gpu: asked.append(workers),
            pause_s=0.02,
        )  # fmt: skip
    assert asked[0] == 3
    assert asked[-1] == 0


def test_nodes_that_are_there_are_not_asked_for() -> None:
    def ask(workers: int, gpu: bool) -> None:
        raise AssertionError

    assert require_room(1, 3, gpu=False, wait_minutes=5, look=lambda: [Node(4, 0)], ask=ask) == Room(1, 0)


def test_fewer_workers_than_asked_for_share_all_that_is_there() -> None:
    room = require_room(1, 4, gpu=True, wait_minutes=0, look=lambda: [Node(8, 2)])
    assert room == Room(4, 1)
    room = require_room(1, 1, gpu=True, wait_minutes=0, look=lambda: [Node(8, 2)])
    assert room == Room(8, 1)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def on_step(self, report: StepReport) -> None:
        raise AssertionError

    def on_epoch(self, report: EpochReport) -> None:
        raise AssertionError

    def on_checkpoint(self, step: int) -> None:
        self.saved.append(step)


def test_the_user_is_told_of_every_turn_and_the_folder_follows(tmp_path: Path) -> None:
    stored = tmp_path / "step-00000012-abc"
    write_json(stored / "config.json", {"new": True})
    write_json(stored / "checkpoints" / "x.json", {})
    run = RunFolder(tmp_path / "run")
    write_json(run.config, {"new": False})
    told: list[str] = []
    heard = Heard()
    follower = Follower(run, heard, told.append)
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
    assert told == [
        "Training with 2 workers on 1 node, from step 0",
        "Workers failed: a worker died; continuing from the last checkpoint as soon as there is room",
        "The cluster has no room for the workers now: waiting",
        "Continuing with 1 worker on 1 node, from step 12",
        "A node is about to be preempted: the state is being saved at step 20",
        "The teachers have predicted the first worker's 2 cases",
    ]
    assert heard.saved == [12]
    assert "true" in run.config.read_text()
    assert (run.path / "checkpoints" / "x.json").exists()


def test_a_board_keeps_notes_until_they_are_taken() -> None:
    board = Board()
    assert board.put(Lost("one")) is None
    board.stop("SIGINT")
    assert board.put(Lost("two")) == "SIGINT"
    assert board.take() == [Lost("one"), Lost("two")]
    assert board.take() == []


def test_a_board_remembers_the_furthest_checkpoint_after_its_note_was_taken(tmp_path: Path) -> None:
    board = Board()
    assert board.furthest() is None
    early, late = (Saved(Checkpoint(str(tmp_path / f"step-{step:08d}-abc")), step) for step in (2, 4))
    board.put(late)
    board.put(early)
    board.take()
    assert board.furthest() == late


@pytest.mark.parametrize(("command", "what"), [("train", "run"), ("tune", "search")])
def test_what_is_started_again_by_itself_needs_a_name(command: str, what: str, tmp_path: Path) -> None:
    words = [command, "--dataset", "acdc", "--data", str(tmp_path), "--resume-if-there"]
    result = CliRunner().invoke(commands, words)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == f"--resume-if-there: name the {what} with --out"


@pytest.mark.parametrize(("text", "expected"), [("1", (1, 1)), ("4", (4, 4)), ("2:8", (2, 8)), ("3:3", (3, 3))])
def test_worker_counts(text: str, expected: tuple[int, int]) -> None:
    assert WorkerCount().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["0", "0:2", "5:2", "-1", "two", "1:", ":3", "1:2:3", "1.5", ""])
def test_worker_counts_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number from 1"):
        WorkerCount().convert(text, None, None)


def test_a_ray_client_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--address auto on a .* `ray job submit`"), connected("ray://head:10001"):
        pass


def test_a_node_that_prepares_its_data_is_waited_for_longer_than_ray_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    class Trainer:
        def __init__(self, work: object, **options: Any) -> None:
            given.update(options)
            raise InterruptedError  # there is no cluster to go on with

    monkeypatch.setattr(launch, "TorchTrainer", Trainer)
    monkeypatch.setattr(launch, "start_board", object)
    recipe = Recipe(
        config={}, split={}, data_dir="data", scribbles=(), shapes=None, cache_root=str(tmp_path), threads=1
    )
    plan = ClusterPlan(fewest=2, most=2, address=None, storage=None, gpu=False)
    with pytest.raises(InterruptedError):
        launch.train_on_cluster(
            recipe, plan, Room(1, 0), RunFolder(tmp_path / "run"), listener=Heard(), notify=print, stop=StopRequest(),
            resume=False,
        )  # fmt: skip
    assert given["torch_config"].timeout_s >= 4 * TorchConfig().timeout_s
