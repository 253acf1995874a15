"""The overhead of Ray Train, and the gain of a second worker, on this machine.

    python benchmarks/cluster.py --data ACDC_DIR --out DIR [--rounds 3] [--epochs 3]

Whole trainings of the fast preset in interleaved rounds: in this process and as one Ray worker with the same threads;
in one process with one thread, as two Ray workers with one thread each, and as two unrelated concurrent runs. Speed is
steps over wall time from the end of the first epoch to the end of the last, including everything between steps. Then
the bytes that two workers exchange in a step of the paper's networks, counted by the loopback interface. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from maag.config.codec import override
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.data.slices.batches import Batch
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.team import TorchTeam

CPU = torch.device("cpu")
_STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    speeds: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name, threads, words in (
            ("in process", cores, ()),
            ("one Ray worker", cores, ("--workers", "1")),
            ("in process, one thread", 1, ()),
            ("two Ray workers, one thread each", 1, ("--workers", "2")),
        ):
            folder = options.out / f"{name.replace(' ', '-').replace(',', '')}-{number}"
            speeds.setdefault(name, []).append(speed(folder, options, threads, words))
            print(f"{name}: {speeds[name][-1]:.3f} steps/s", file=sys.stderr)
        # How far two busy cores slow each other down without communication.
        pair = [options.out / f"unrelated-{number}-{one}" for one in range(2)]
        with ThreadPoolExecutor(2) as pool:
            together = pool.map(lambda folder: speed(folder, options, 1, ()), pair)
        speeds.setdefault("two unrelated runs, one thread each", []).append(sum(together))
    in_process, ray_worker, one, two, unrelated = speeds.values()
    report = {
        "steps_per_second": {name: statistics.median(values) for name, values in speeds.items()},
        "one_ray_worker_over_in_process": ratios(ray_worker, in_process),
        "two_workers_over_one": ratios(two, one),
        "two_unrelated_runs_over_one": ratios(unrelated, one),
        **exchanged(),
    }
    print(json.dumps(report, indent=2))


def speed(folder: Path, options: argparse.Namespace, threads: int, words: tuple[str, ...]) -> float:
    """Steps per second of wall time after the first epoch."""
    never = ("--set", "train.validate_every=1000000", "--set", "train.validate_every_late=1000000")
    line = [
        *(sys.executable, "-m", "maag", "train", "--dataset", "acdc", "--data", options.data, "--preset", "fast"),
        *("--epochs", options.epochs, *never, *words, "--out", folder),
    ]
    if not (folder / "result.json").exists():
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / f"{folder.name}.log").open("wb") as log:
            done = subprocess.run([str(word) for word in line], check=False, env=environment, stderr=log)
        if done.returncode:
            raise SystemExit(f"{folder.name} failed with {done.returncode}; the reason is at the end of {log.name}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    # The last epoch ends with a validation, whose time is in its line.
    first, last = lines[0], lines[-2]
    return float((last["step"] - first["step"]) / (last["seconds"] - first["seconds"]))


def ratios(upper: list[float], lower: list[float]) -> dict[str, float]:
    found = [one / other for one, other in zip(upper, lower, strict=True)]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def exchanged() -> dict[str, float]:
    """Bytes over the loopback interface per step of two workers, and the size of the gradients."""
    config = override(preset("acdc", "paper"), {"optim.batch_size": 2, "loss.adversarial_unlabelled": 0.0})
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(exchange, args=(2, folder, config), nprocs=2, start_method="spawn")
        counted = json.loads((Path(folder) / "bytes.json").read_text())
    state = TrainState(config, CPU)
    assert state.discriminator is not None
    return {
        "loopback_bytes_per_step": counted / _STEPS,
        "segmentor_gradient_bytes": 4 * sum(parameter.numel() for parameter in state.segmentor.parameters()),
        "discriminator_gradient_bytes": 4 * sum(parameter.numel() for parameter in state.discriminator.parameters()),
    }


def exchange(rank: int, size: int, folder: str, config: Config) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size, timeout=timedelta(minutes=5)
    )
    torch.set_num_threads(1)
    state = TrainState(config, CPU, TorchTeam(CPU))
    height, width = config.data.size_px
    labels = torch.randint(0, 4, (1, height, width), dtype=torch.uint8)
    batch = Batch(torch.randn(1, 1, height, width), labels, None, labels)
    update(state, batch, config)
    distributed.barrier()
    before = loopback_bytes()
    for _ in range(_STEPS):
        update(state, batch, config)
    distributed.barrier()
    if rank == 0:
        (Path(folder) / "bytes.json").write_text(json.dumps(loopback_bytes() - before))
    distributed.destroy_process_group()


def loopback_bytes() -> int:
    return int(Path("/sys/class/net/lo/statistics/rx_bytes").read_text())


if __name__ == "__main__":
    main()
