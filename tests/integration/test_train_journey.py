"""The first journey through the command line, and its interruptions."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def maag(cache: Path, *words: object) -> list[str]:
    os.environ["MAAG_CACHE"] = str(cache)
    return [sys.executable, "-m", "maag", *map(str, words)]


def run(cache: Path, *words: object, code: int = 0) -> Any:
    done = subprocess.run(maag(cache, *words), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if "--json" in words else done.stderr


def history(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("seconds", "steps_per_second")} for line in lines]


def test_phantoms_are_trained_on_evaluated_exported_and_predicted(tmp_path: Path, tiny_options: list[str]) -> None:
    cache, data, model = tmp_path / "cache", tmp_path / "acdc", tmp_path / "run"
    named = ("--dataset", "acdc", "--data", data)
    run(cache, "data", "phantom", "--dataset", "acdc", "--out", data, "--cases", 6)
    assert run(cache, "data", "check", *named, "--json")["problems"] == []
    outcome = run(cache, "train", *named, "--out", model, *tiny_options, "--json")
    assert outcome["ending"] == "done"
    measured = run(cache, "evaluate", model, *named, "--split", "val", "--json")
    both = run(cache, "evaluate", model, *named, "--split", "val", "--flips", "--largest-component", "--json")
    assert {**both, "refined": None} == {**measured, "refined": None}
    assert both["refined"]["subject"]["refinement"] == "flips+largest-component"
    assert both["refined"]["summary"] != measured["summary"]
    assert (model / "evaluation-val" / "flips+largest-component" / "report.json").is_file()
    run(cache, "export", model, "--out", tmp_path / "model", "--json")
    exported = run(cache, "evaluate", tmp_path / "model", *named, "--split-file", model / "split.json", "--json")
    assert exported["summary"]["mean"]["dice"] == pytest.approx(measured["summary"]["mean"]["dice"], abs=1e-3)
    images = sorted(data.rglob("*_frame??.nii.gz"))
    done = run(
        cache, "predict", *images, "--model", tmp_path / "model", "--out", tmp_path / "labels", "--review", "--json"
    )  # fmt: skip
    assert done.pop("tables") == {
        "patients_measured": 0, "frames_reviewed": 12, "changed": 0, "without_expected_dice": 0, "stale": [],
    }  # fmt: skip
    assert done == {
        "done": 12, "skipped": 0, "kept": 0, "failed": 0, "failures": [],
        "passed_over": 0, "orientation_differs": 0, "orientation_unknown": 0,
    }  # fmt: skip
    assert_same_expected_dice(tmp_path / "labels" / "review.csv", model / "evaluation-val" / "cases.csv")
    again = run(
        cache, "evaluate", *named, "--predictions", tmp_path / "labels", "--split", "val",
        "--split-file", model / "split.json", "--json",
    )  # fmt: skip
    assert again["summary"]["mean"]["dice"] == pytest.approx(measured["summary"]["mean"]["dice"], abs=1e-3)


def assert_same_expected_dice(review: Path, cases: Path) -> None:
    """`predict`, without masks, reports the same expected Dice as `evaluate`."""
    reviewed = {Path(row["labels"]).name: row for row in csv.DictReader(review.read_text().splitlines())}
    assert len(reviewed) == 12
    measured = list(csv.DictReader(cases.read_text().splitlines()))
    with_expected = [row for row in measured if row["expected_dice"]]
    assert with_expected
    for row in measured:
        expected = reviewed[f"{row['case_id']}.nii.gz"][row["class"]]
        assert bool(expected) == bool(row["expected_dice"])
        if expected:
            assert float(expected) == pytest.approx(float(row["expected_dice"]), abs=2e-3)


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGTERM, ("--workers", "1"))]
)
def test_signal_saves_the_run_and_resume_completes_it(
    phantom_dir: Path, tmp_path: Path, tiny_options: list[str], number: signal.Signals, how: tuple[str, ...]
) -> None:
    cache = tmp_path / "cache"
    words = ("train", "--dataset", "acdc", "--data", phantom_dir)
    settings = [*tiny_options, "--epochs", "12"]
    run(cache, *words, "--out", tmp_path / "whole", *settings)
    with subprocess.Popen(maag(cache, *words, "--out", tmp_path / "parts", *settings, *how)) as process:
        deadline = time.monotonic() + 60
        metrics = tmp_path / "parts" / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == 1
    assert (tmp_path / "parts" / "checkpoints" / "last.pt").is_file()
    assert len(history(tmp_path / "parts")) < 12
    run(cache, *words, "--out", tmp_path / "parts", "--resume")
    parts, whole = history(tmp_path / "parts"), history(tmp_path / "whole")
    assert len(parts) == len(whole) == 12
    for one, other in zip(parts, whole, strict=True):
        # Where it was cut, losses were summed in two parts.
        assert one.pop("losses") == pytest.approx(other.pop("losses"), rel=1e-6)
        assert one.pop("dice") == pytest.approx(other.pop("dice"), rel=1e-6)
        assert one == pytest.approx(other, rel=1e-6)
