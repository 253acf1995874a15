"""How much of the bare training step's speed `maag train` keeps, how fast data are prepared, and in what memory.

    python benchmarks/speed.py --data ACDC_DIR [--preset fast] [--threads 2] [--chunks 12]

The bare step is the same update of the same networks on one fixed batch that lies on the device. Both are timed in
turn, ten steps of the loop then ten bare ones, so that a machine whose speed drifts slows both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from maag.cli.options import pick_device
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.batches import TrainingBatches
from maag.data.cache import prepare
from maag.data.catalog import preset, reader_of
from maag.data.prepared import PreparedData
from maag.data.splits import make_split
from maag.data.supervision import supervise
from maag.train.fit import fit
from maag.train.folder import create_run
from maag.train.loop import STEPS_BETWEEN_READINGS
from maag.train.reports import EpochReport, Live
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.stopping import StopRequest

_WARM_UP_CHUNKS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunks", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    config = override(preset("acdc", options.preset), {"train.validate_every": 10**6, "train.checkpoint_minutes": 1e6})
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        prepared = prepare(options.data, config.data, Path(scratch) / "cache")
        preparing = time.perf_counter() - started
        report = {
            "device": str(device),
            "threads": options.threads,
            "preset": options.preset,
            "volumes": len(prepared.cases),
            "volumes_per_second": len(prepared.cases) / preparing,
            **compare_steps(config, prepared, device, options.chunks, Path(scratch) / "run"),
        }
    print(json.dumps(report, indent=2))


def compare_steps(
    config: Config, prepared: PreparedData, device: torch.device, chunks: int, folder: Path
) -> dict[str, float]:
    split = make_split(prepared.patients, config.data, reader_of(config.data.dataset).split0)
    stop = StopRequest()
    batch = TrainingBatches(supervise(prepared, split, config), config, device).at(0)
    turns = Turns(TrainState(config, device), batch, config, device, stop, chunks)
    outcome = fit(
        config,
        prepared,
        split,
        create_run(folder, config, split),
        device=device,
        listener=turns,
        stop=stop,
        resume=False,
    )
    loop, bare = turns.loop[_WARM_UP_CHUNKS:], turns.bare[_WARM_UP_CHUNKS:]
    ratios = [one / other for one, other in zip(bare, loop, strict=True)]
    return {
        "loop_steps_per_second": STEPS_BETWEEN_READINGS / statistics.median(loop),
        "bare_steps_per_second": STEPS_BETWEEN_READINGS / statistics.median(bare),
        "loop_over_bare_median": statistics.median(ratios),
        "loop_over_bare_min": min(ratios),
        "loop_over_bare_max": max(ratios),
        "peak_memory_mib": outcome.peak_memory_mib,
    }


class Turns:
    """A listener that does and times ten bare steps whenever the loop has done ten of its own."""

    def __init__(
        self, state: TrainState, batch: object, config: Config, device: torch.device, stop: StopRequest, chunks: int
    ) -> None:
        self._state, self._batch, self._config, self._device = state, batch, config, device
        self._stop, self._chunks = stop, chunks
        self.loop: list[float] = []
        self.bare: list[float] = []
        self._since = time.perf_counter()
        self._step = 0

    def on_live(self, live: Live) -> None:
        elapsed = time.perf_counter() - self._since
        if live.step - self._step == STEPS_BETWEEN_READINGS:
            self.loop.append(elapsed)
            self.bare.append(self._time_bare())
            if len(self.loop) >= self._chunks + _WARM_UP_CHUNKS:
                self._stop.ask("measured")
        self._step = live.step
        self._since = time.perf_counter()

    def on_epoch(self, report: EpochReport) -> None:
        self._since = time.perf_counter()

    def on_checkpoint(self, step: int) -> None:
        self._since = time.perf_counter()

    def _time_bare(self) -> float:
        started = time.perf_counter()
        for _ in range(STEPS_BETWEEN_READINGS):
            losses = update(self._state, self._batch, self._config)  # type: ignore[arg-type]
        float(losses["supervised"])  # wait for the device
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
