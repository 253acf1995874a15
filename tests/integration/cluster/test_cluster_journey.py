"""Training on a real Ray cluster on this machine, with a raylet for each node, and failures of nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from journeys import LOW_LEARNING_RATES, Command, assert_same_metrics, read_metrics
from ray.cluster_utils import Cluster
from s3 import BUCKET, client_of, s3_server

from maag import checkpoint

pytestmark = pytest.mark.integration
EPOCHS = 8
WORKER = "RayTrainWorker"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing, and three nodes with room for one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(3):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(cache))


@pytest.fixture(scope="module")
def words(phantom_dir: Path, tiny_options: list[str]) -> list[object]:
    """Arguments of a run whose updates do not depend on the number of workers."""
    more = (
        *LOW_LEARNING_RATES,
        "--set",
        "segmentor.sync_batchnorm=true",
        "--set",
        "optim.batch_size=3",
        "--epochs",
        EPOCHS,
    )
    return ["train", "--dataset", "acdc", "--data", phantom_dir, *tiny_options, *more]


@pytest.fixture(scope="module")
def undisturbed(words: list[object], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of that run in one process, without Ray."""
    run = tmp_path_factory.mktemp("plain") / "run"
    code, _ = Command(*words, "--out", run, environment={"MAAG_CACHE": str(cache)}).wait_for_exit()
    assert code == 0
    return read_metrics(run)


def nodes_with_workers(cluster: Cluster) -> list[Any]:
    """The nodes on which a worker trains."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.list_all_nodes()}
    found = []
    for process in workers():
        parents = [parent.pid for parent in process.parents()]
        found += [node for pid, node in raylets.items() if pid in parents]
    return found


def workers() -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if any(WORKER in word for word in _words_of(process))]


def _words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_training_survives_a_dead_and_a_preempted_node(
    cluster: Cluster, words: list[object], undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = Command(*words, "--workers", 2, "--address", cluster.address, "--out", run, "--json")
    command.wait_for_line(r"Training with 2 workers on 2 nodes, from step 0")
    command.wait_for_line(r"^epoch 2/")
    cluster.remove_node(nodes_with_workers(cluster)[0], allow_graceful=False)
    command.wait_for_line(r"Workers failed: a worker died")
    command.wait_for_line(r"Continuing with 2 workers on 2 nodes, from step [1-9]")
    cluster.add_node(num_cpus=1)
    doomed = nodes_with_workers(cluster)[0]
    deadline_s = 6
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address, "--node-id",
         doomed.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
         "--deadline-remaining-seconds", str(deadline_s)],
        check=True,
    )  # fmt: skip
    taking = threading.Timer(deadline_s, lambda: cluster.remove_node(doomed, allow_graceful=False))
    taking.start()
    command.wait_for_line(r"A node is about to be preempted: the state is being saved at step \d")
    code, output = command.wait_for_exit()
    taking.join()
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


def test_training_does_not_resume_from_an_interrupted_upload(
    words: list[object], undisturbed: list[dict[str, Any]], tmp_path: Path
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
        third = Command(*words, "--workers", 1, *storage, "--out", tmp_path / "third" / "run", environment=environment)
        code, _ = third.wait_for_exit()
        assert code == 2
        assert "already holds a run named run; add --resume" in third.stderr

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


def test_run_moves_between_a_cluster_and_one_process(
    words: list[object], undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = Command(*words, "--workers", 2, "--out", run)
    command.wait_for_line(r"^epoch 2/")
    command.send_signal(signal.SIGINT)
    code, _ = command.wait_for_exit()
    assert code == 1
    command.wait_for_line(r"Stopped at step \d+ and saved")
    rest = [*words[: words.index("--preset")], "--out", run, "--resume"]
    code, _ = Command(*rest, "--max-time", 0.0001).wait_for_exit()  # one more step in this process
    assert code == 0
    last = Command(*rest, "--workers", 1)
    last.wait_for_line(r"Training with 1 worker on 1 node, from step [1-9]")
    code, _ = last.wait_for_exit()
    assert code == 0, last.stderr
    assert_same_metrics(read_metrics(run), undisturbed)


def test_errors_that_the_user_must_fix_are_not_retried(words: list[object], tmp_path: Path) -> None:
    command = Command(*words, "--set", "optim.lr=1e30", "--workers", 2, "--out", tmp_path / "nan")
    code, _ = command.wait_for_exit()
    assert code == 1
    assert "loss became nan" in command.stderr
    assert "try a lower optim.lr" in command.stderr
    assert command.stderr.count("from step 0") == 1
    assert "Traceback" not in command.stderr

    unequal = Command(*words, "--workers", 2, "--set", "optim.batch_size=1", "--out", tmp_path / "few")
    code, _ = unequal.wait_for_exit()
    assert code == 2
    assert "2 workers cannot share batches of 1 slices" in unequal.stderr
