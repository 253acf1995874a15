"""The fastest way to run a training step on this machine: precision, compilation, CUDA graphs.

    python benchmarks/steps.py --data ACDC_DIR [--presets paper best] [--steps 100] [--ways "bf16, recorded"]

Each way trains separately from the same weights, on batches sampled and augmented as in `maag train`; the device is
synchronised only at the end. The milliseconds of a step include its batch; `starting` is the seconds of the first
steps, in which kernels are chosen, compiled and recorded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from roofline import wait
from tables import markdown

from maag.cli.resolving import pick_device
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.cache.preparing import prepare
from maag.data.catalog import preset, reader_of
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import Supervision, supervise
from maag.data.split_making import make_split
from maag.train.recorded import PLAIN_STEPS, updates_of
from maag.train.state import TrainState

_STARTING = PLAIN_STEPS + 12
WAYS: Mapping[str, Mapping[str, Any]] = {
    "eager fp32": {"train.cuda_graph": False, "train.precision": "fp32"},
    "bf16": {"train.cuda_graph": False, "train.precision": "auto"},
    "fp32, recorded": {"train.precision": "fp32"},
    "bf16, recorded": {"train.precision": "auto"},
    "bf16, compiled": {"train.cuda_graph": False, "train.precision": "auto", "train.compile": True},
    "bf16, compiled, recorded": {"train.precision": "auto", "train.compile": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--presets", nargs="+", default=["paper", "best"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, help="prepared data that stay  [default: none]")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting of all ways")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", flush=True)
    rows = [["preset", "slices a step", "way", "ms/step", "steps/s", "starting, s", "peak MiB"]]
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.presets:
            changes = dict(change.split("=", 1) for change in options.changes)
            config = override(preset("acdc", name), changes)
            prepared = prepare(options.data, config.data, options.cache or Path(scratch))
            split = make_split(prepared.patients, config.data, reader_of("acdc").split0)
            supervision = supervise(prepared, split, config)
            slices = config.optim.batch_size * (2 if config.loss.adversarial_unlabelled else 1)
            for way in options.ways:
                cells = measure(override(config, WAYS[way]), supervision, device, options.steps)
                rows.append([name, str(slices), way, *cells])
                print(rows[-1], flush=True)
    print(markdown(rows))


def measure(config: Config, supervision: Supervision, device: torch.device, steps: int) -> list[str]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    state, batches = TrainState(config, device), TrainingBatches(supervision, config, device)
    update = updates_of(state, config)
    losses: dict[str, torch.Tensor] = {}
    times = []
    for first, last in ((0, _STARTING), (_STARTING, _STARTING + steps)):
        wait(device)
        started = time.perf_counter()
        for step in range(first, last):
            state.set_rates(config.optim.lr_min, config.optim.lr_discriminator)
            state.noise.manual_seed(step)
            losses = update(batches.at(step))
            state.progress.step += 1
        wait(device)
        times.append(time.perf_counter() - started)
    assert all(torch.isfinite(loss) for loss in losses.values())
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
    return [f"{1000 * times[1] / steps:.2f}", f"{steps / times[1]:.1f}", f"{times[0]:.1f}", f"{peak:.0f}"]


if __name__ == "__main__":
    main()
