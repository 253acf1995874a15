"""`on_gpu.py` starts without maag installed, and tables show undefined numbers as dashes."""

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
def test_statistics_undefined_for_few_hearts_are_shown_as_a_dash(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    agreement = asdict(Agreement.of([Pair(reference=1, predicted=2)]))
    cell = importlib.import_module(script).cell(agreement)
    assert "r -" in cell
    assert "nan" not in cell.lower()


def test_on_gpu_script_starts_without_maag_installed(tmp_path: Path) -> None:
    alone = [sys.executable, "-I", "-S"]
    assert subprocess.run([*alone, "-c", "import maag"], cwd=tmp_path, capture_output=True, check=False).returncode
    done = subprocess.run(
        [*alone, BENCHMARKS / "on_gpu.py", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
