"""All benchmarks that need a GPU: the paper's run, speed, inference, tests, the table of ACDC, steps, rates, and parts.

    python benchmarks/on_gpu.py --data ACDC_DIR --out DIR [--minutes 9.5] [--lanes "tests; speed --chunks 4" "table"]

For a quarter of an hour of one GPU in calls of ten minutes, use these two, with the same DIR on the same machine:

    python benchmarks/on_gpu.py --data ACDC_DIR --out DIR --minutes 9.5     # the paper's run, alone; then what fits
    python benchmarks/on_gpu.py --data ACDC_DIR --out DIR --minutes 3.5     # continues with what is left, in order

A call ends by itself within --minutes. The next one with the same arguments skips what is done, retries what failed,
and continues runs from their last checkpoints. After each call, the files to copy from the machine are in DIR/pack
(`pack.py`).

Lanes run concurrently, the stages of a lane one after the other; words after a stage's name are arguments of its
program. While a stage in ALONE runs, those of other lanes are paused or wait; of two such stages the one in the earlier
lane is first. Each stage is a separate program with a time limit in seconds, which `name:seconds` changes; a stage that
fails or times out does not stop others. Its output is in DIR/NUMBER-NAME.log; the ends of all logs are printed last.
"""

from __future__ import annotations

import argparse
import importlib.util
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
STAGES: Mapping[str, tuple[float, float, str]] = {
    "tests": (240, 80, "-W default -m pytest -W default -q -rs -p no:cacheprovider tests/gpu"),
    "steps": (240, 90, "benchmarks/steps.py --data {data} --cache {out}/cache --device cuda"),
    "rates": (120, 60, "benchmarks/acdc_rates.py --data {data} --out {out}/rates"),
    "speed": (
        180,
        75,
        "benchmarks/speed.py --data {data} --preset paper --set train.precision=auto --set train.compile=true "
        "--chunks 6 --cache {out}/cache --kernels {out}/kernels --device cuda",
    ),
    "inference": (120, 45, "benchmarks/inference.py --data {data} --out {out}/inference --gpu-only"),
    "paper": (
        900,
        30,
        "benchmarks/acdc_gpu.py --data {data} --out {out}/paper --cache {out}/cache --arms paper --compile "
        "--device cuda --minutes {minutes:.2f}",
    ),
    "table": (
        900,
        30,
        "benchmarks/acdc_gpu.py --data {data} --out {out}/table --cache {out}/cache --device cuda "
        "--minutes {minutes:.2f}",
    ),
    "parts": (540, 120, "benchmarks/acdc_best.py --data {data} --out {out}/parts --epochs 30 --at-once 8"),
}
"""By name: the time limit in seconds, the seconds that must be left of a call to start it, and its program.

They require CUDA, because otherwise they would run on the CPU until the call is over.
"""
ALONE = ("paper", "steps", "speed", "inference")
"""Stages that run alone: those that measure time, and the run that needs most of a call."""
_LANES = [
    "paper --seeds 1 --tracks P35 --parts val shapes; speed --chunks 4; inference; steps",
    "tests",
    # Without `paper`, which the first lane trains and the table would begin with; on the grid of the tables so far.
    "table --except paper --parts val shapes --set data.size_px=[128,128]; parts",
]
_NEEDED = (
    *("click", "matplotlib", "monai", "nibabel", "numpy", "onnx", "onnxruntime", "onnxscript", "pydantic", "pydicom"),
    *("pytest", "safetensors", "scipy", "skimage", "torch"),
)
"""Packages that the stages import; maag itself need not be installed."""
_LINES = 45
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_PACK = 15.0
_SECONDS_TO_IMPORT = 20.0
"""Of a stage, before its own clock starts."""
_GOES_ON = 3
"""Exit code of a program that has runs left for another call."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.5, help="that this call may take")
    parser.add_argument("--lanes", nargs="+", default=_LANES)
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes - _SECONDS_TO_PACK
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        parser.error(f"the stages need {', '.join(missing)}: install these first")
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = count(1)
    lanes = [
        [Stage(next(numbers), *shlex.split(words), options=options, deadline=deadline) for words in lane.split(";")]
        for lane in options.lanes
    ]
    # Stages have their own process groups, which would outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    try:
        drive(lanes)
    finally:
        for stage in (stage for lane in lanes for stage in lane):
            stage.end()
    for stage in (stage for lane in lanes for stage in lane):
        print(f"\n== {stage.log.stem}: {stage.ending}")
        if stage.log.exists():
            print("\n".join(stage.log.read_text(errors="replace").splitlines()[-_LINES:]))
    subprocess.run([sys.executable, HERE / "pack.py", options.out], check=False, env=environment(options.out))


def environment(out: Path) -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "TORCHINDUCTOR_CACHE_DIR": str(out.resolve() / "kernels")}


def drive(lanes: Sequence[Sequence[Stage]]) -> None:
    """Run the stages of all lanes that are not done and have enough time, and report the end of each."""
    started = time.monotonic()
    waiting = [[stage for stage in lane if not stage.is_done] for lane in lanes]
    running: dict[int, Stage] = {}
    while any(waiting) or running:
        for place, stage in list(running.items()):
            if stage.has_ended():
                print(f"{time.monotonic() - started:4.0f} s: {stage.log.stem}: {stage.ending}", flush=True)
                del running[place]
                if stage.is_alone:
                    for other in running.values():
                        other.go_on()
        for place, lane in enumerate(waiting):
            if lane and not lane[0].has_time():
                lane.clear()
            if not lane or place in running or any(stage.is_alone for stage in running.values()):
                continue
            if lane[0].is_alone:
                for other in running.values():
                    other.stand_still()
            running[place] = lane.pop(0)
            running[place].begin()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


class Stage:
    """A program that can be started, paused, and killed when its time is over."""

    def __init__(self, number: int, word: str, *further: str, options: argparse.Namespace, deadline: float) -> None:
        name, _, seconds = word.partition(":")
        limit, self._least, self._line = STAGES[name]
        self.log: Path = options.out / f"{number}-{name}.log"
        self.is_alone = name in ALONE
        self._options, self._further = options, further
        self._limit, self._deadline = float(seconds or limit), deadline
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = self.log.with_suffix(".done")
        self.is_done = self._mark.exists() and self._mark.read_text() == shlex.join([name, *further])
        self._name = name
        self.ending = "done before" if self.is_done else "not begun"

    def has_time(self) -> bool:
        """Whether enough of the call is left to start it; if not, the rest of its lane is skipped as well."""
        return self._deadline - time.monotonic() >= self._least

    def begin(self) -> None:
        self._seconds, self._since = 0.0, time.monotonic()
        self._halted = False
        data, out = self._options.data.resolve(), self._options.out.resolve()
        minutes = (self._deadline - self._since - _SECONDS_TO_IMPORT) / 60
        words = self._line.format(data=data, out=out, minutes=max(0.0, minutes)).split()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", *words, *self._further], cwd=HERE.parent, stdout=log, stderr=log,
                env=environment(self._options.out), start_new_session=True,
            )  # fmt: skip

    def stand_still(self) -> None:
        """Pause its processes until `go_on`; the pause does not count towards its time limit."""
        self._seconds += time.monotonic() - self._since
        self._halted = True
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._since = time.monotonic()
        self._halted = False
        self._signal(signal.SIGCONT)

    def has_ended(self) -> bool:
        """Whether it has ended, after setting `ending`; a stage that is out of time is killed."""
        assert self._process is not None
        if self._halted:
            return False
        seconds = self._seconds + time.monotonic() - self._since
        code = self._process.poll()
        if code == 0:
            self._mark.write_text(shlex.join([self._name, *self._further]))
            self.ending = f"done in {seconds:.0f} s"
        elif code == _GOES_ON:
            self.ending = f"stopped by itself after {seconds:.0f} s, to be continued in another call"
        elif code is not None:
            self.ending = f"failed with {code} after {seconds:.0f} s"
        elif seconds > self._limit or time.monotonic() > self._deadline:
            self.ending = f"stopped after {seconds:.0f} s"
        else:
            return False
        self.end()  # child processes that it left running
        return True

    def end(self) -> None:
        """Kill its processes, if it was started and has not ended."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(self._process.pid, number)


if __name__ == "__main__":
    main()
