"""Training speed: the loop of `maag train`, the bare step, and a plain loop written without regard to speed.

    python benchmarks/speed.py --data ACDC_DIR [--preset fast] [--set train.precision=auto] [--chunks 12]

The bare step is the same update of the same networks on one fixed batch on the device. All three are timed in
interleaved rounds, so that drift in the machine's speed affects them alike; a round has as many steps as the loop does
between two readings of its losses, or in an epoch if that has fewer. The report also has the step's share of the
machine's peak, the time before the first step, the cost of validation and checkpoints, and the time of a whole run.
`--set` changes the settings of the loop and of the bare step; the plain loop is always eager fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from naive_loop import NaiveLoop
from overheads import time_overheads, whole_run
from roofline import roofline, wait

from maag.cli.resolving import pick_device
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.data.catalog import preset, reader_of
from maag.data.slices.batches import Batch, TrainingBatches
from maag.data.slices.supervision import Supervision, supervise
from maag.data.split_making import make_split
from maag.data.splits import Split
from maag.train.acceleration import runs_in_bf16
from maag.train.fit import fit
from maag.train.folder import create_run
from maag.train.loss_sums import steps_between_readings
from maag.train.recorded import updates_of
from maag.train.reports import EpochReport, StepReport
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.stopping import StopRequest

_WARM_UP_CHUNKS = 2
EAGER_FP32 = {"train.compile": False, "train.precision": "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting of the loop and the step")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--loaders", type=int, help="that load for the plain loop  [default: 8 beside a GPU, else 0]")
    parser.add_argument("--stated-tflops", type=float, help="peak in this precision by the GPU's data sheet")
    parser.add_argument("--cache", type=Path, help="prepared data that stay  [default: prepared anew, which is timed]")
    parser.add_argument("--kernels", type=Path, help="compiled kernels that stay  [default: compiled anew]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    config = override(preset("acdc", options.preset), dict(change.split("=", 1) for change in options.changes))
    loaders = options.loaders if options.loaders is not None else 8 if device.type == "cuda" else 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((options.kernels or Path(scratch) / "kernels").resolve())
        cache = options.cache or Path(scratch) / "cache"
        started = time.perf_counter()
        prepared = prepare(options.data, config.data, cache)
        preparing = time.perf_counter() - started
        split = make_split(prepared.patients, config.data, reader_of(config.data.dataset).split0)
        supervision = supervise(prepared, split, config)
        batch = TrainingBatches(supervision, config, device).at(0)
        report: dict[str, Any] = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": options.threads,
            "preset": options.preset,
            "changes": options.changes,
            "volumes": len(prepared.cases),
            "volumes_prepared_per_second": None if options.cache else len(prepared.cases) / preparing,
            "largest_difference_of_a_loss": compare_losses(config, supervision, batch, device),
        }
        report |= time_overheads(config, options.data, cache, split, device, Path(scratch))
        report |= time_steps(config, prepared, split, device, options.chunks, loaders, Path(scratch) / "run")
        report["minutes_of_a_whole_run"] = whole_run(config, supervision, report) / 60
        eager = override(config, EAGER_FP32)
        state = TrainState(eager, device)
        report["use"] = roofline(
            lambda: update(state, batch, eager),
            report["loop_steps_per_second"],
            device,
            torch.bfloat16 if runs_in_bf16(config.train, device) else torch.float32,
            options.stated_tflops,
        )
    print(json.dumps(report, indent=2))


def compare_losses(config: Config, supervision: Supervision, batch: Batch, device: torch.device) -> float:
    """Largest relative difference between the losses of the plain loop and of the step, in two updates, eager fp32."""
    quiet = {"discriminator.instance_noise": 0.0, "discriminator.label_noise": 0.0}
    config = override(config, {**EAGER_FP32, **quiet})
    plain, state = NaiveLoop(supervision, config, device, 0), TrainState(config, device)
    assert batch.masks is not None
    largest = 0.0
    for _ in range(2):
        state.set_rates(config.optim.lr, config.optim.lr_discriminator)
        found = {name: float(loss) for name, loss in update(state, batch, config).items()}
        expected = plain.update(batch.images, batch.labels, batch.unlabelled, batch.masks)
        largest = max(largest, *(abs(found[name] / expected[name] - 1) for name in expected))
    if largest > 0.01:
        raise SystemExit(f"the plain loop's losses differ from the step's by {largest:.2g}: they are not comparable")
    return largest


def time_steps(
    config: Config,
    prepared: PreparedData,
    split: Split,
    device: torch.device,
    chunks: int,
    loaders: int,
    folder: Path,
) -> dict[str, float]:
    """Steps per second of all three, and their ratios over the rounds."""
    config = override(config, {"train.validate_every": 10**6, "train.checkpoint_minutes": 1e6})
    supervision = supervise(prepared, split, config)
    state, batch = TrainState(config, device), TrainingBatches(supervision, config, device).at(0)
    state.set_rates(config.optim.lr, config.optim.lr_discriminator)
    update_of = updates_of(state, config)
    plain = NaiveLoop(supervision, override(config, EAGER_FP32), device, loaders)
    stop = StopRequest()
    # The losses are also read at the end of an epoch, which may have fewer steps.
    per_epoch = TrainingBatches(supervision, config, torch.device("cpu")).steps_per_epoch
    steps = min(steps_between_readings(device), per_epoch)
    others = {"bare": lambda: update_of(batch), "plain": plain.step}
    rounds = Rounds(others, device, stop, steps, _WARM_UP_CHUNKS + chunks)
    run = create_run(folder, config, split)
    outcome = fit(config, prepared, split, run, device=device, listener=rounds, stop=stop, resume=False)
    seconds = {name: times[_WARM_UP_CHUNKS:] for name, times in rounds.seconds.items()}
    if not seconds["loop"]:
        raise SystemExit(f"the run ended before {_WARM_UP_CHUNKS + 1} rounds of {steps} steps: set optim.epochs higher")
    report = {f"{name}_steps_per_second": steps / statistics.median(seconds[name]) for name in seconds}
    for other in ("bare", "plain"):
        ratios = [theirs / ours for theirs, ours in zip(seconds[other], seconds["loop"], strict=True)]
        report |= {
            f"loop_over_{other}_{name}": summary(ratios)
            for name, summary in (("median", statistics.median), ("min", min), ("max", max))
        }
    return {**report, "peak_memory_mib": outcome.peak_memory_mib}


class Rounds:
    """A listener that times the loop's steps, and after each chunk of them as many steps of the others."""

    def __init__(
        self,
        others: dict[str, Callable[[], object]],
        device: torch.device,
        stop: StopRequest,
        steps: int,
        chunks: int,
    ) -> None:
        self._others, self._device, self._stop = others, device, stop
        self._steps, self._chunks = steps, chunks
        self.seconds: dict[str, list[float]] = {name: [] for name in ("loop", *others)}
        self._since = time.perf_counter()
        self._step = 0

    def on_step(self, report: StepReport) -> None:
        elapsed = time.perf_counter() - self._since
        if report.step - self._step == self._steps:
            self.seconds["loop"].append(elapsed)
            for name, step in self._others.items():
                self.seconds[name].append(self._time(step))
            if len(self.seconds["loop"]) >= self._chunks:
                self._stop.interrupt("measured")
        self._step = report.step
        self._since = time.perf_counter()

    def on_epoch(self, report: EpochReport) -> None:
        self._since = time.perf_counter()

    def on_checkpoint(self, step: int) -> None:
        self._since = time.perf_counter()

    def _time(self, step: Callable[[], object]) -> float:
        started = time.perf_counter()
        for _ in range(self._steps):
            step()
        wait(self._device)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
