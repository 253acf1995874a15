"""All that only a GPU can say, in one call: tests, steps, rates, speed, inference, the table of ACDC, and its parts.

    python benchmarks/on_gpu.py --data ACDC_DIR --out DIR [--lanes "tests; speed --chunks 4" "table"]

Lanes run at once, the stages of a lane one after the other; words after a stage's name go to its program. While a stage
is timed, those of other lanes stand still. Each is a program of its own under a limit of seconds, which `name:seconds`
changes, and one that fails or is out of time stops no other. What the stages print lies in OUT/NUMBER-NAME.log, and the
ends of all logs come last.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

HERE = Path(__file__).parent
STAGES: Mapping[str, tuple[float, str]] = {
    "tests": (240, "-W default -m pytest -W default -q -rs -p no:cacheprovider tests/gpu"),
    "steps": (240, "benchmarks/steps.py --data {data} --cache {out}/cache"),
    "rates": (120, "benchmarks/acdc_rates.py --data {data} --out {out}/rates"),
    "speed": (
        180,
        "benchmarks/speed.py --data {data} --preset paper --set train.precision=auto --set train.compile=true "
        "--chunks 6 --cache {out}/cache --kernels {out}/kernels",
    ),
    "inference": (120, "benchmarks/inference.py --data {data} --out {out}/inference --gpu-only"),
    "paper": (
        900,
        "benchmarks/acdc_gpu.py --data {data} --out {out}/paper --cache {out}/cache --arms paper --compile "
        "--minutes 14.5",
    ),
    "table": (900, "benchmarks/acdc_gpu.py --data {data} --out {out}/table --cache {out}/cache --minutes 14.5"),
    "parts": (540, "benchmarks/acdc_best.py --data {data} --out {out}/parts --epochs 30 --at-once 8"),
}
TIMED = ("steps", "speed", "inference")
"""Stages beside which nothing else may run."""
_LANES = [
    "paper --seeds 1 --tracks P35; inference",
    "tests; speed; steps; rates",
    # Without `paper`, which the first lane trains at the same time and the table would begin with.
    "table --except paper; parts",
]
_LINES = 45
_SECONDS_BETWEEN_LOOKS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lanes", nargs="+", default=_LANES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = count(1)
    lanes = [
        [Stage(next(numbers), *shlex.split(words), options=options) for words in lane.split(";")]
        for lane in options.lanes
    ]
    drive(lanes)
    for stage in (stage for lane in lanes for stage in lane):
        print(f"\n== {stage.log.stem}")
        print("\n".join(stage.log.read_text(errors="replace").splitlines()[-_LINES:]))


def drive(lanes: Sequence[Sequence[Stage]]) -> None:
    """Run all stages of all lanes, and say when each has ended."""
    started = time.monotonic()
    waiting = [list(lane) for lane in lanes]
    running: dict[int, Stage] = {}
    while any(waiting) or running:
        for place, stage in list(running.items()):
            if stage.has_ended():
                print(f"{time.monotonic() - started:4.0f} s: {stage.log.stem}: {stage.ending}", flush=True)
                del running[place]
                if stage.is_timed:
                    for other in running.values():
                        other.go_on()
        for place, lane in enumerate(waiting):
            if not lane or place in running or any(stage.is_timed for stage in running.values()):
                continue
            if lane[0].is_timed:
                for other in running.values():
                    other.stand_still()
            running[place] = lane.pop(0)
            running[place].begin()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


class Stage:
    """A program that can be begun, halted, and ended when its time is over."""

    def __init__(self, number: int, word: str, *further: str, options: argparse.Namespace) -> None:
        name, _, seconds = word.partition(":")
        limit, line = STAGES[name]
        words = line.format(data=options.data.resolve(), out=options.out.resolve()).split()
        self.log: Path = options.out / f"{number}-{name}.log"
        self.is_timed = name in TIMED
        self.ending = "not begun"
        self._limit = float(seconds or limit)
        self._words = [*words, *further]
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        kernels = str(options.out.resolve() / "kernels")
        self._environment = {**os.environ, "PYTHONPATH": path, "TORCHINDUCTOR_CACHE_DIR": kernels}

    def begin(self) -> None:
        self._seconds, self._since = 0.0, time.monotonic()
        self._halted = False
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", *self._words], cwd=HERE.parent, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )  # fmt: skip

    def stand_still(self) -> None:
        """Its processes, until `go_on`; its limit does not run meanwhile."""
        self._seconds += time.monotonic() - self._since
        self._halted = True
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._since = time.monotonic()
        self._halted = False
        self._signal(signal.SIGCONT)

    def has_ended(self) -> bool:
        """Whether it has, and how is in `ending` then; one that is out of time is ended now."""
        if self._halted:
            return False
        seconds = self._seconds + time.monotonic() - self._since
        code = self._process.poll()
        if code is not None:
            self.ending = f"done in {seconds:.0f} s" if code == 0 else f"failed with {code} after {seconds:.0f} s"
        elif seconds > self._limit:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self.ending = f"stopped after {seconds:.0f} s"
        else:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # of one that has just ended by itself
            os.killpg(self._process.pid, number)


if __name__ == "__main__":
    main()
