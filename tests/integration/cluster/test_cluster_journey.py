"""Training on a real Ray cluster on this machine, with a raylet for each node, and failures of nodes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from command_line import run as run_here
from maag_subprocess import Command, assert_same_metrics, read_metrics, wait_until
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from s3_server import BUCKET, client_of, s3_server

from maag import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_shared_cache")]
WORKER = "RayTrainWorker"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head and two more nodes, with room for one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def nodes_with_workers(cluster: Cluster) -> list[Any]:
    """The nodes, other than the head, on which a worker trains."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    found = []
    for process in workers():
        parents = [parent.pid for parent in process.parents()]
        found += [node for pid, node in raylets.items() if pid in parents]
    return found


def drain(cluster: Cluster, node: Any, deadline_s: float) -> None:
    """Announce that the node will be preempted, as `ray drain-node` does."""
    deadline_ms = int((time.time() + deadline_s) * 1000)
    accepted, why = GcsClient(address=cluster.address).drain_node(
        node.node_id, DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "spot", deadline_ms
    )
    assert accepted, why


def time_of(file: Path) -> int:
    """When it was written, in ns; 0 if there is none."""
    return file.stat().st_mtime_ns if file.exists() else 0


def workers() -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if any(WORKER in word for word in _words_of(process))]


def _words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_training_survives_a_dead_node(
    cluster: Cluster, words: list[object], undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = Command(*words, "--workers", 2, "--address", cluster.address, "--out", run, "--json")
    command.wait_for_line(r"Training with 2 workers on 2 nodes, from step 0")
    command.wait_for_line(r"^epoch 2/")
    cluster.remove_node(nodes_with_workers(cluster)[0], allow_graceful=False)
    command.wait_for_line(r"Workers failed: a worker died")
    command.wait_for_line(r"Continuing with 2 workers on 2 nodes, from step [1-9]")
    code, output = command.wait_for_exit()
    assert code == 0, command.stderr
    assert_same_metrics(read_metrics(run), undisturbed)
    summary = json.loads(output)
    assert (summary["ending"], summary["run"]) == ("done", str(run))
    assert json.loads((run / "result.json").read_text())["run"] == str(run)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "best.safetensors", "final.safetensors", "last.pt"
    }  # fmt: skip
    assert not (run / "cluster").exists()
    assert "raylet" not in command.stderr


@pytest.mark.long
def test_training_saves_its_state_before_a_node_is_preempted(
    cluster: Cluster, words: list[object], undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = Command(*words, "--workers", 2, "--address", cluster.address, "--out", run)
    command.wait_for_line(r"^epoch 1/")
    doomed, state = nodes_with_workers(cluster)[0], run / "checkpoints" / "last.pt"
    before = time_of(state)
    drain(cluster, doomed, deadline_s=600)
    command.wait_for_line(r"A node is about to be preempted: the state is being saved at step \d")
    wait_until(lambda: time_of(state) > before)
    cluster.remove_node(doomed, allow_graceful=False)
    command.wait_for_line(r"Workers failed: a worker died, its node was preempted")
    command.wait_for_line(r"Continuing with 2 workers on 2 nodes, from step [1-9]")
    code, _ = command.wait_for_exit()
    assert code == 0, command.stderr
    assert_same_metrics(read_metrics(run), undisturbed)


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")
@pytest.mark.long
def test_training_does_not_resume_from_an_interrupted_upload(
    words: list[object],
    undisturbed: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with s3_server() as (server, environment):
        storage = ["--storage", f"s3://{BUCKET}/runs"]
        run = tmp_path / "one" / "run"
        command = Command(*words, "--workers", 2, *storage, "--out", run, environment=environment)
        command.wait_for_line(r"^epoch 4/")  # Ray, which looks every two seconds, knows of a state by then
        server.block_upload("last.pt")
        assert server.upload_blocked.wait(120)
        for process in workers():
            process.kill()
        command.wait_for_line(r"Workers failed")
        server.unblock_upload()
        command.wait_for_line(r"Continuing with 2 workers .* from step [1-9]")
        command.wait_for_line(r"^epoch 5/")
        command.send_signal(signal.SIGKILL)
        command.wait_for_exit()
        for process in workers():  # they end by themselves, a little later
            process.wait(60)

        # On another machine, which has only the name of the run.
        again = tmp_path / "other" / "run"
        rest = words[: words.index("--preset")]
        resumed = Command(*rest, "--workers", "1:2", *storage, "--out", again, "--resume", environment=environment)
        resumed.wait_for_line(r"from step [1-9]")
        code, _ = resumed.wait_for_exit()
        assert code == 0, resumed.stderr
        assert_same_metrics(read_metrics(again), undisturbed)

        # A new run of the same name would go on from the old one.
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run_here(*words, "--workers", 1, *storage, "--out", tmp_path / "third" / "run") == 2
        assert "already holds a run named run; add --resume" in capsys.readouterr().err

        client = client_of(environment)
        keys = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert {
            f"runs/run/run/{name}" for name in ("config.json", "result.json", "checkpoints/best.safetensors")
        } <= set(keys)
        states = [key for key in keys if key.endswith("last.pt")]
        assert states
        for key in states:
            client.download_file(BUCKET, key, str(tmp_path / "state.pt"))
            checkpoint.load_state(tmp_path / "state.pt", torch.device("cpu"))


def test_run_moves_between_one_process_and_a_cluster(
    words: list[object], undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert run_here(*words, "--out", run, "--max-time", 0.0001) == 0  # one step in this process
    rest = [*words[: words.index("--preset")], "--out", run, "--resume"]
    command = Command(*rest, "--workers", 2)
    command.wait_for_line(r"Training with 2 workers on 1 node, from step 1$")
    command.wait_for_line(r"^epoch 2/")
    command.send_signal(signal.SIGINT)
    code, _ = command.wait_for_exit()
    assert code == 1, command.stderr
    command.wait_for_line(r"Stopped at step \d+ and saved")
    assert run_here(*rest) == 0
    assert_same_metrics(read_metrics(run), undisturbed)


def test_errors_that_the_user_must_fix_are_not_retried(words: list[object], tmp_path: Path) -> None:
    command = Command(*words, "--set", "optim.lr=1e30", "--workers", 1, "--out", tmp_path / "nan")
    command.wait_for_line(r"Training with 1 worker on 1 node, from step 0")
    code, _ = command.wait_for_exit()
    assert code == 1
    assert "loss became nan" in command.stderr
    assert "try a lower optim.lr" in command.stderr
    assert command.stderr.count("from step 0") == 1
    assert "Traceback" not in command.stderr
