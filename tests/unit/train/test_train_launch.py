"""Launching, as far as it needs no cluster: room for workers, and how they are started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.train.torch import TorchConfig

from maag.errors import ConfigError
from maag.train.folder import RunFolder
from maag.train.launch import launch
from maag.train.launch.connection import connected
from maag.train.launch.launch import ClusterPlan
from maag.train.launch.recipe import Recipe
from maag.train.launch.room import Node, Room, places, require_room, room_for, takes_gpu
from maag.train.reports import Listeners
from maag.train.stopping import StopRequest

NODES = st.lists(st.builds(Node, cpus=st.integers(0, 20), gpus=st.integers(0, 4)), max_size=6)


@given(NODES, st.integers(1, 12), st.booleans())
def test_each_worker_gets_the_most_cpus_that_fit_all_workers(nodes: list[Node], workers: int, gpu: bool) -> None:
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
def test_more_workers_than_the_cluster_has_room_for_are_refused(
    nodes: list[Node], workers: int, gpu: bool, sentence: str
) -> None:
    with pytest.raises(ConfigError, match="--workers") as refused:
        require_room(workers, workers, gpu=gpu, wait_minutes=0, look=lambda: nodes)
    assert sentence in str(refused.value)


def test_gpu_use_is_not_guessed_before_nodes_exist() -> None:
    assert takes_gpu(True, 2, 5, look=lambda: [])
    assert takes_gpu(None, 2, 5, look=lambda: [Node(4, 1)])
    assert not takes_gpu(None, 2, 5, look=lambda: [Node(2, 0)])
    assert not takes_gpu(None, 2, 0, look=lambda: [])
    assert not takes_gpu(False, 2, 5, look=lambda: [])
    with pytest.raises(
        ConfigError, match=r"--wait 5: whether workers take GPUs is unknown .* --device cuda or --device cpu"
    ):
        takes_gpu(None, 2, 5, look=lambda: [Node(1, 0)])


def test_require_room_waits_for_nodes() -> None:
    snapshots = iter([[Node(1, 0)], [Node(1, 0)], [Node(1, 0), Node(4, 0)]])
    requested: list[int] = []
    room = require_room(
        2, 3, gpu=False, wait_minutes=1, look=lambda: next(snapshots),
        ask=lambda workers, gpu: requested.append(workers), pause_s=0,
    )  # fmt: skip
    assert room == Room(1, 0)
    assert requested == [3, 3, 0]  # else an autoscaler would keep them forever


@pytest.mark.parametrize("ending", [ConfigError, KeyboardInterrupt])
def test_the_request_for_missing_nodes_is_withdrawn(ending: type[BaseException]) -> None:
    requested: list[int] = []

    def look() -> list[Node]:
        if requested and ending is KeyboardInterrupt:
            raise KeyboardInterrupt
        return [Node(1, 0)]

    with pytest.raises(ending):
        require_room(
            2, 3, gpu=False, wait_minutes=0.001, look=look, ask=lambda workers, gpu: requested.append(workers),
            pause_s=0.02,
        )  # fmt: skip
    assert requested[0] == 3
    assert requested[-1] == 0


def test_available_nodes_are_not_requested() -> None:
    def ask(workers: int, gpu: bool) -> None:
        raise AssertionError

    assert require_room(1, 3, gpu=False, wait_minutes=5, look=lambda: [Node(4, 0)], ask=ask) == Room(1, 0)


def test_fewer_workers_share_all_available_resources() -> None:
    room = require_room(1, 4, gpu=True, wait_minutes=0, look=lambda: [Node(8, 2)])
    assert room == Room(4, 1)
    room = require_room(1, 1, gpu=True, wait_minutes=0, look=lambda: [Node(8, 2)])
    assert room == Room(8, 1)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["maag.train.launch.board", "tune.stop_requests"])
def test_modules_of_small_actors_import_neither_pytorch_nor_ray_train(module: str) -> None:
    # The actor's process takes a second with neither, and several with both.
    listing = f"import sys, {module}; print({{'torch', 'ray.train', 'ray.tune', 'pandas'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_ray_client_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--address auto on a .* `ray job submit`"), connected("ray://head:10001"):
        pass


def test_the_worker_timeout_leaves_time_to_prepare_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer_options: dict[str, Any] = {}

    class Trainer:
        def __init__(self, work: object, **options: Any) -> None:
            trainer_options.update(options)
            raise InterruptedError  # there is no cluster to go on with

    monkeypatch.setattr(launch, "TorchTrainer", Trainer)
    monkeypatch.setattr(launch, "start_note_board", object)
    recipe = Recipe(
        config={}, split={}, data_dir="data", scribbles=(), shapes=None, cache_root=str(tmp_path), threads=1
    )
    plan = ClusterPlan(fewest=2, most=2, address=None, storage=None, gpu=False)
    with pytest.raises(InterruptedError):
        launch.train_on_cluster(
            recipe, plan, Room(1, 0), RunFolder(tmp_path / "run"), listener=Listeners(), notify=print,
            stop=StopRequest(), resume=False,
        )  # fmt: skip
    assert trainer_options["torch_config"].timeout_s >= 4 * TorchConfig().timeout_s
