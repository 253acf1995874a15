"""What benchmarks need of the machine that they are copied to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_all_for_a_gpu_begins_where_maag_is_not_installed(tmp_path: Path) -> None:
    alone = [sys.executable, "-I", "-S"]
    assert subprocess.run([*alone, "-c", "import maag"], cwd=tmp_path, capture_output=True, check=False).returncode
    done = subprocess.run(
        [*alone, BENCHMARKS / "on_gpu.py", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
