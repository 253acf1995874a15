"""What benchmarks need of the machine that they are copied to, and what they print of numbers that are none."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from maag.evaluate.agreement import Agreement, Pair

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize("script", ["acdc_expected", "acdc_volumes"])
def test_what_few_hearts_leave_undefined_is_a_dash(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    agreement = asdict(Agreement.of([Pair(reference=1, predicted=2)]))
    cell = importlib.import_module(script).cell(agreement)
    assert "r -" in cell
    assert "nan" not in cell.lower()


def test_all_for_a_gpu_begins_where_maag_is_not_installed(tmp_path: Path) -> None:
    alone = [sys.executable, "-I", "-S"]
    assert subprocess.run([*alone, "-c", "import maag"], cwd=tmp_path, capture_output=True, check=False).returncode
    done = subprocess.run(
        [*alone, BENCHMARKS / "on_gpu.py", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
