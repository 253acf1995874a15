"""All that only a GPU can say, in one call: tests, steps, rates, speed, inference, the table of ACDC, and its parts.

    python benchmarks/on_gpu.py --data ACDC_DIR --out DIR [--stages "steps --steps 50" "tests + rates" table]

Stages run one after the other, those joined by + at once; words after a name go to its program. Each is a program of
its own under a limit of seconds, which `name:seconds` changes, and one that fails or is out of time stops no other.
What the stages print lies in OUT/NUMBER-NAME.log, and the ends of all logs come last.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

HERE = Path(__file__).parent
STAGES: Mapping[str, tuple[float, str]] = {
    "tests": (240, "-W default -m pytest -W default -q -rs -p no:cacheprovider tests/gpu"),
    "steps": (240, "benchmarks/steps.py --data {data}"),
    "rates": (120, "benchmarks/acdc_rates.py --data {data} --out {out}/rates"),
    "speed": (120, "benchmarks/speed.py --data {data} --preset paper --set train.precision=auto --chunks 6"),
    "inference": (120, "benchmarks/inference.py --data {data} --out {out}/inference --gpu-only"),
    "table": (540, "benchmarks/acdc_gpu.py --data {data} --out {out}/table"),
    "parts": (540, "benchmarks/acdc_best.py --data {data} --out {out}/parts --epochs 30 --at-once 8"),
}
_LINES = 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--stages", nargs="+", default=["steps", "tests + rates", "speed", "inference", "table", "parts"]
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    numbers, logs = count(1), []
    for group in options.stages:
        for stage in [Stage(next(numbers), *shlex.split(words), options=options) for words in group.split("+")]:
            print(f"{time.monotonic() - started:4.0f} s: {stage.log.stem}: {stage.wait()}", flush=True)
            logs.append(stage.log)
    for log in logs:
        print(f"\n== {log.stem}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-_LINES:]))


class Stage:
    """A program that has begun."""

    def __init__(self, number: int, word: str, *further: str, options: argparse.Namespace) -> None:
        name, _, seconds = word.partition(":")
        limit, line = STAGES[name]
        words = line.format(data=options.data.resolve(), out=options.out.resolve()).split()
        self.log = options.out / f"{number}-{name}.log"
        self._began = time.monotonic()
        self._limit = float(seconds or limit)
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", *words, *further], cwd=HERE.parent, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> str:
        """How it ended."""
        try:
            code = self._process.wait(max(0.0, self._began + self._limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return f"stopped after {self._limit:.0f} s"
        seconds = time.monotonic() - self._began
        return f"done in {seconds:.0f} s" if code == 0 else f"failed with {code} after {seconds:.0f} s"


if __name__ == "__main__":
    main()
