"""Room for workers in a cluster: a run that cannot be placed is refused instead of waiting for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ray
from ray.autoscaler.sdk import request_resources

from maag.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Node:
    """Resources of one node."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Room:
    """Resources of one worker."""

    cpus: int
    gpus: int


def threads_of(cpus: int) -> int:
    """PyTorch's threads for a worker with `cpus` CPUs: one each, or fewer if OMP_NUM_THREADS is lower."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cpus, int(asked))) if asked.isdigit() else cpus


def nodes_of_cluster() -> list[Node]:
    """The live nodes of the cluster that Ray is connected to."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in found]


def takes_gpu(
    wanted: bool | None, fewest: int, wait_minutes: float, look: Callable[[], list[Node]] = nodes_of_cluster
) -> bool:
    """Whether each worker takes a GPU: as `wanted`, or if that is None, if the cluster has any.

    Raises ConfigError if `wanted` is None and nodes are still to be started: GPU nodes might come, and would train on
    their CPUs.
    """
    if wanted is not None:
        return wanted
    nodes = look()
    gpu = any(node.gpus for node in nodes)
    if not gpu and wait_minutes and places(nodes, Room(1, 0)) < fewest:
        raise ConfigError(
            f"--wait {wait_minutes:g}: whether workers take GPUs is unknown until nodes are there; add --device cuda "
            "or --device cpu"
        )
    return gpu


def places(nodes: Sequence[Node], room: Room) -> int:
    """How many workers with resources `room` fit on the nodes."""
    return sum(
        min(node.cpus // room.cpus, node.gpus // room.gpus if room.gpus else node.cpus // room.cpus) for node in nodes
    )


def room_for(nodes: Sequence[Node], workers: int, *, gpu: bool) -> Room:
    """The most CPUs, at least one, that each of `workers` can have, and a GPU each if `gpu`."""
    most = max((node.cpus for node in nodes), default=1)
    rooms = [Room(cpus, int(gpu)) for cpus in range(max(1, most), 0, -1)]
    return next((room for room in rooms if places(nodes, room) >= workers), rooms[-1])


def ask_autoscaler(workers: int, gpu: bool) -> None:
    """Request nodes for `workers`, replacing earlier requests; without an autoscaler it has no effect."""
    request_resources(bundles=[{"CPU": 1, **({"GPU": 1} if gpu else {})}] * workers)


def require_room(
    fewest: int,
    most: int,
    *,
    gpu: bool,
    wait_minutes: float,
    look: Callable[[], list[Node]] = nodes_of_cluster,
    ask: Callable[[int, bool], None] = ask_autoscaler,
    pause_s: float = 2.0,
) -> Room:
    """Resources of each worker, once the cluster has room for `fewest` of them.

    Args:
        fewest: workers without which the run is refused.
        most: workers at most.
        gpu: whether each needs a GPU.
        wait_minutes: how long an autoscaler may take to start nodes, which are requested meanwhile.
        look: returns the nodes of the cluster.
        ask: requests nodes for a number of workers from an autoscaler; 0 withdraws the request.
        pause_s: seconds between two looks.

    Raises:
        ConfigError: there is no room.
    """
    until = time.monotonic() + 60 * wait_minutes
    smallest = Room(1, int(gpu))
    asked = False
    try:
        while (available := places(nodes := look(), smallest)) < fewest:
            if time.monotonic() >= until:
                cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
                raise ConfigError(
                    f"--workers {fewest}: the cluster has room for {available} ({len(nodes)} nodes with {cpus} CPUs "
                    f"and {gpus} GPUs; each worker needs {'a GPU and ' if gpu else ''}a CPU); ask for fewer, add "
                    "nodes, or give an autoscaler time with --wait MINUTES"
                )
            # Repeated, because an actor of Ray Train that an earlier run left in the cluster overwrites the request.
            ask(most, gpu)
            asked = True
            time.sleep(pause_s)
    finally:
        if asked:
            # Withdrawn, or the nodes would be kept for ever; and already here, so that a later kill leaves no request.
            # From now on running and pending workers hold or request their nodes, and Ray Train requests those of an
            # elastic run while it trains.
            ask(0, gpu)
    return room_for(nodes, min(most, available), gpu=gpu)
