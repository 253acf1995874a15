"""Training across hosts: network namespaces of this machine, each with an address and a Ray node of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from gs_az_servers import free_port
from maag_subprocess import Command, assert_same_metrics, read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_shared_cache")]
# Names and a subnet of this process: a run of the tests that was killed leaves its own behind.
PID = os.getpid()
TAG = f"mg{PID}"
HOSTS = (f"{TAG}a", f"{TAG}b")
NETWORK = f"10.{64 + PID // 254 % 64}.{1 + PID % 254}"
HEAD = f"{NETWORK}.1"
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
WORKER = "RayTrainWorker"


def do(*words: object, **more: Any) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


def can_make_hosts() -> bool:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    bridge, end, namespace = f"{TAG}pb", f"{TAG}po", f"{TAG}p"
    try:
        do("ip", "netns", "add", namespace)
        do("ip", "link", "add", bridge, "type", "bridge")
        do("ip", "link", "add", end, "type", "veth", "peer", "name", "node0", "netns", namespace)
        do("ip", "netns", "exec", namespace, "ip", "link", "set", "lo", "up")
        return True
    except OSError:
        return False
    finally:
        for words in (("link", "del", end), ("link", "del", bridge), ("netns", "del", namespace)):
            subprocess.run(["ip", *words], capture_output=True)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head here and two hosts, with room for one worker each; yields the address."""
    if not can_make_hosts():
        pytest.skip("needs root and `ip netns` to make hosts on this machine")
    # A proxy to the outside cannot reach this network.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    # Whether a node asks for a token would depend on what was run on this machine before.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    bridge, port = f"{TAG}br", free_port()
    here = {**os.environ, "GLOO_SOCKET_IFNAME": bridge, "RAY_USAGE_STATS_ENABLED": "0"}
    there = {**here, "GLOO_SOCKET_IFNAME": "node0"}
    try:
        do("ip", "link", "add", bridge, "type", "bridge")
        do("ip", "addr", "add", f"{HEAD}/24", "dev", bridge)
        do("ip", "link", "set", bridge, "up")
        do(*RAY, "start", "--head", "--node-ip-address", HEAD, "--port", port, "--num-cpus", 1,
           "--include-dashboard", "false", env=here)  # fmt: skip
        for number, host in enumerate(HOSTS, start=11):
            do("ip", "netns", "add", host)
            do("ip", "link", "add", f"{host}o", "type", "veth", "peer", "name", "node0", "netns", host)
            do("ip", "link", "set", f"{host}o", "master", bridge, "up")
            inside = ("ip", "netns", "exec", host)
            do(*inside, "ip", "link", "set", "lo", "up")
            do(*inside, "ip", "addr", "add", f"{NETWORK}.{number}/24", "dev", "node0")
            do(*inside, "ip", "link", "set", "node0", "up")
            do(*inside, *RAY, "start", "--address", f"{HEAD}:{port}", "--node-ip-address", f"{NETWORK}.{number}",
               "--num-cpus", 1, env=there)  # fmt: skip
        yield f"{HEAD}:{port}"
    finally:
        for pid in [pid for host in HOSTS for pid in pids_on(host)] + pids_of_head():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def pids_on(host: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def pids_of_head() -> list[int]:
    """Processes of Ray that were started with the head's address."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != PID and any(HEAD in word for word in process.cmdline()):
                found.append(process.pid)
    return found


def trains(host: str) -> bool:
    for pid in pids_on(host):
        with suppress(psutil.Error):
            if any(WORKER in word for word in psutil.Process(pid).cmdline()):
                return True
    return False


@pytest.mark.long
def test_training_survives_a_host_that_dies_during_an_epoch(
    words: list[object], undisturbed: list[dict[str, Any]], hosts: str, tmp_path: Path
) -> None:
    cluster = ("--workers", 2, "--address", hosts, "--storage", tmp_path / "shared")
    command = Command(*words, *cluster, "--out", tmp_path / "run")
    command.wait_for_line(r"Training with 2 workers on 2 nodes, from step 0")
    command.wait_for_line(r"^epoch 2/")
    victim = next(host for host in HOSTS if trains(host))
    for pid in pids_on(victim):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    command.wait_for_line(r"Workers failed: a worker died")
    command.wait_for_line(r"Continuing with 2 workers on 2 nodes, from step [1-9]")
    code, _ = command.wait_for_exit()
    assert code == 0, command.stderr
    assert_same_metrics(read_metrics(tmp_path / "run"), undisturbed)
    # The storage has the whole run.
    assert read_metrics(tmp_path / "shared" / "run" / "run") == read_metrics(tmp_path / "run")
    assert (tmp_path / "shared" / "run" / "run" / "checkpoints" / "best.safetensors").exists()
