"""The scripts of `benchmarks/` from the first run to the table, on synthetic patients and with tiny networks."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maag.checkpoint import load_segmentor

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SETTINGS = ("data.size_px=[32,32]", "data.spacing_mm=6", "segmentor.width=4", "discriminator.width=4")
TINY = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def _beside_the_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(script: str, *words: object) -> str:
    line = [sys.executable, BENCHMARKS / script, *words]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a script in this process, which has imported torch already; returns what it printed."""

    def run(script: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        capsys.readouterr()
        importlib.import_module(script.removesuffix(".py")).main()
        return capsys.readouterr().out

    return run


def rows_of(text: str) -> list[list[str]]:
    """The cells of every line of a table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_full_size_table_resumes_where_it_was_stopped(
    run_here: Callable[..., str], phantom_dir: Path, tmp_path: Path
) -> None:
    from acdc_gpu import train
    from acdc_jobs import Job

    changes = [*SETTINGS, "optim.epochs=2", "optim.batch_size=4"]
    table = tmp_path / "table"
    first = Job("P35", "best", 1)
    options = argparse.Namespace(
        data=phantom_dir, out=table, cache=tmp_path / "cache", precision="auto", compile=False, changes=changes
    )
    train(first, options, torch.device("cpu"), deadline=0)
    run_folder = first.folder(table)
    assert json.loads((run_folder / "result.json").read_text())["ending"] == "interrupted"
    assert not first.is_trained(table)

    arms = "best 'best, student of a first run'"
    set_options = " ".join(f"--set {change}" for change in changes)
    lanes = [
        f"table --device cpu --seeds 1 --arms {arms} --parts val shapes {set_options}",
        f"steps --presets best --steps 1 --ways 'eager fp32' --device cpu {set_options}",
    ]
    words = ("--data", phantom_dir, "--out", tmp_path, "--minutes", 30, "--lanes", *lanes)
    text = run("on_gpu.py", *words)
    assert "1-table: done in" in text, text
    assert "2-steps: done in" in text, text
    steps = [line["step"] for line in map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())]
    assert len(steps) == 2
    assert steps[1] == 2 * steps[0]

    val, shapes = (table / "table.md").read_text().split("Measured on ")[1:]
    both = ["best", "best, student of a first run"]
    assert [row[:3] for row in rows_of(val)[1:]] == [[track, arm, "1"] for track in ("P35", "P70") for arm in both]
    assert [row[:3] for row in rows_of(shapes)[1:]] == [["P35", arm, "1"] for arm in both]
    assert all(0 <= float(row[3]) <= 1 for row in rows_of(val)[1:] + rows_of(shapes)[1:])
    split = json.loads((table / "P70" / "best-1" / "split.json").read_text())
    assert {f"shapes/{patient}" for patient in split["scribbled"]} > set(split["shapes"])
    assert (table / "curves.png").exists()

    words_of_expected = ("--data", phantom_dir, "--out", tmp_path / "expected", "--part", "shapes")
    expected = rows_of(run_here("acdc_expected.py", run_folder, *words_of_expected))
    perturbations = ["as they are", "turned by 90°", "mirrored", "noise", "blurred"]
    assert [row[0] for row in expected] == [
        "run, shapes",
        "best-1",
        "best-1 rotations+largest-component",
        "volumes",
        *perturbations,
    ]
    assert expected[4][1].split(" of ")[1] == expected[8][1].split(" of ")[1] != "0"

    again = run("on_gpu.py", *words)
    assert "1-table: done before" in again
    with tarfile.open(tmp_path / "pack" / "results.tar.gz") as archive:
        assert {"table/table.md", "1-table.log", "table/P70/best-1/result.json"} <= set(archive.getnames())
    halved = load_segmentor(tmp_path / "pack" / "table-P70-best-1.safetensors").segmentor.state_dict()
    whole = load_segmentor(table / "P70" / "best-1" / "checkpoints" / "final.safetensors").segmentor.state_dict()
    for name, weights in whole.items():
        assert torch.allclose(halved[name], weights, rtol=1e-3, atol=1e-6), name


def test_held_out_patients_of_a_fold_give_no_scribbles_or_masks() -> None:
    from acdc_jobs import FOLDS, patients_of

    held_out = [set(patients_of(fold)["val"]) for fold in FOLDS]
    assert len(set.union(*held_out)) == 45
    for fold, val in zip(FOLDS, held_out, strict=True):
        split = patients_of(fold)
        assert len(split["scribbled"]) == 70
        assert len(split["shapes"]) == 35
        assert not val & {*split["scribbled"], *split["shapes"], *split["test"]}
        assert not set(split["test"]) & {*split["scribbled"], *split["shapes"]}


def test_settings_table_has_a_row_for_each_arm(run_here: Callable[..., str], phantom_dir: Path, tmp_path: Path) -> None:
    arms = ["best settings", "best settings, student of a first run"]
    words = ("--data", phantom_dir, "--out", tmp_path / "out", "--seeds", 1, "--epochs", 1)
    found = rows_of(run_here("acdc_best.py", *words, "--arms", *arms, *TINY))
    assert [row[0] for row in found if row[1] == "1"] == arms
    # The second table has Dice / HD95 with each refinement.
    assert [row[0] for row in found if " / " in row[1] and row[1][0] == "0"] == arms
    assert (tmp_path / "out" / "plot.png").exists()


def test_speed_benchmark_times_plain_bare_and_loop_steps(run_here: Callable[..., str], phantom_dir: Path) -> None:
    report = json.loads(run_here("speed.py", "--data", phantom_dir, "--chunks", 1, "--device", "cpu", *TINY))
    assert all(report[f"{name}_steps_per_second"] > 0 for name in ("loop", "bare", "plain"))
    assert report["largest_difference_of_a_loss"] < 0.01
    assert report["use"]["gflop_per_step"] > 0
