"""What a cluster has room for, so that a run that cannot be placed is refused instead of waiting for ever."""

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
    """What one node has."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Room:
    """What one worker takes of it."""

    cpus: int
    gpus: int


def threads_of(cpus: int) -> int:
    """PyTorch's threads for a worker that takes so many CPUs: as many, or fewer where OMP_NUM_THREADS says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cpus, int(asked))) if asked.isdigit() else cpus


def nodes_of_cluster() -> list[Node]:
    """The living nodes of the cluster that Ray is connected to."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in found]


def takes_gpu(
    wanted: bool | None, fewest: int, wait_minutes: float, look: Callable[[], list[Node]] = nodes_of_cluster
) -> bool:
    """Whether each worker takes a GPU: as `wanted`, or if the cluster has any.

    Raises ConfigError where nobody said it and the nodes that would tell are still to be started: GPU nodes would come
    and train on their CPUs.
    """
    if wanted is not None:
        return wanted
    nodes = look()
    gpu = any(node.gpus for node in nodes)
    if not gpu and wait_minutes and places(nodes, Room(1, 0)) < fewest:
        raise ConfigError(
            f"--wait {wait_minutes:g}: no node is there yet to tell whether workers take GPUs; say --device cuda or "
            "--device cpu"
        )
    return gpu


def places(nodes: Sequence[Node], room: Room) -> int:
    """How many workers of `room` the nodes hold."""
    return sum(
        min(node.cpus // room.cpus, node.gpus // room.gpus if room.gpus else node.cpus // room.cpus) for node in nodes
    )


def room_for(nodes: Sequence[Node], workers: int, *, gpu: bool) -> Room:
    """As many CPUs for each of `workers` as they can all have; one at least, and a GPU each if `gpu`."""
    most = max((node.cpus for node in nodes), default=1)
    rooms = [Room(cpus, int(gpu)) for cpus in range(max(1, most), 0, -1)]
    return next((room for room in rooms if places(nodes, room) >= workers), rooms[-1])


def ask_autoscaler(workers: int, gpu: bool) -> None:
    """Ask for nodes for so many workers, instead of those asked for before; without an autoscaler it has no effect."""
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
    """What each worker may take, once the cluster has room for `fewest` of them.

    Args:
        fewest: below these it is refused.
        most: how many there may be.
        gpu: each needs one.
        wait_minutes: how long an autoscaler may take to start the nodes; they are asked for, until they are there.
        look: what the cluster has.
        ask: asks an autoscaler for so many workers' nodes, and with 0 takes that back.
        pause_s: between looks.

    Raises:
        ConfigError: there is no room.
    """
    until = time.monotonic() + 60 * wait_minutes
    smallest = Room(1, int(gpu))
    asked = False
    try:
        while (there := places(nodes := look(), smallest)) < fewest:
            if time.monotonic() >= until:
                cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
                raise ConfigError(
                    f"--workers {fewest}: the cluster has room for {there} ({len(nodes)} nodes with {cpus} CPUs and "
                    f"{gpus} GPUs; each worker needs {'a GPU and ' if gpu else ''}a CPU); ask for fewer, add nodes, or "
                    "give an autoscaler time with --wait MINUTES"
                )
            # Again and again: what an earlier run left in the cluster to speak for Ray Train takes our place.
            ask(most, gpu)
            asked = True
            time.sleep(pause_s)
    finally:
        if asked:
            # Or the nodes would be kept for ever. Already here, so that a kill later on leaves nothing behind: workers
            # hold their nodes, those that wait for one ask for it by that, and Ray Train itself asks for the most of an
            # elastic run for as long as it trains.
            ask(0, gpu)
    return room_for(nodes, min(most, there), gpu=gpu)
