"""The first journey through the command line, and its interruptions."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Maag
from command_line import run as run_here
from maag_subprocess import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_cache")]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "maag", *map(str, words)]


def run(*words: object) -> Any:
    """A process of its own, as a user starts it."""
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if "--json" in words else done.stderr


def history(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("seconds", "steps_per_second")} for line in lines]


def test_phantoms_are_trained_on_evaluated_exported_and_predicted(
    maag: Maag, tmp_path: Path, tiny_options: list[str]
) -> None:
    data, model = tmp_path / "acdc", tmp_path / "run"
    named = ("--dataset", "acdc", "--data", data)
    run("data", "phantom", "--dataset", "acdc", "--out", data, "--cases", 6)
    assert run("data", "check", *named, "--json")["problems"] == []
    outcome = run("train", *named, "--out", model, *tiny_options, "--json")
    assert outcome["ending"] == "done"
    measured = run("evaluate", model, *named, "--split", "val", "--json")
    both = maag("evaluate", model, *named, "--split", "val", "--flips", "--largest-component", "--json")
    assert {**both, "refined": None} == {**measured, "refined": None}
    assert both["refined"]["subject"]["refinement"] == "flips+largest-component"
    assert both["refined"]["summary"] != measured["summary"]
    assert (model / "evaluation-val" / "flips+largest-component" / "report.json").is_file()
    run("export", model, "--out", tmp_path / "model", "--json")
    exported = maag("evaluate", tmp_path / "model", *named, "--split-file", model / "split.json", "--json")
    assert exported["summary"]["mean"]["dice"] == pytest.approx(measured["summary"]["mean"]["dice"], abs=1e-3)
    images = sorted(data.rglob("*_frame??.nii.gz"))
    done = run(
        "predict", *images, "--model", tmp_path / "model", "--out", tmp_path / "labels", "--review", "--json"
    )  # fmt: skip
    assert done.pop("tables") == {
        "patients_measured": 0, "frames_reviewed": 12, "changed": 0, "without_expected_dice": 0, "stale": [],
    }  # fmt: skip
    assert done == {
        "done": 12, "skipped": 0, "kept": 0, "failed": 0, "failures": [],
        "passed_over": 0, "orientation_differs": 0, "orientation_unknown": 0,
    }  # fmt: skip
    assert_same_expected_dice(tmp_path / "labels" / "review.csv", model / "evaluation-val" / "cases.csv")
    again = maag(
        "evaluate", *named, "--predictions", tmp_path / "labels", "--split", "val",
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


@pytest.fixture(scope="module")
def whole(
    phantom_dir: Path, tiny_options: list[str], shared_cache: None, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The history of a run that no signal stops."""
    out = tmp_path_factory.mktemp("whole") / "run"
    options = ("--dataset", "acdc", "--data", phantom_dir, "--out", out, *tiny_options, "--epochs", 12)
    assert run_here("train", *options) == 0
    return history(out)


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGTERM, ("--workers", "1"))]
)
def test_signal_saves_the_run_and_resume_completes_it(
    maag: Maag,
    phantom_dir: Path,
    whole: list[dict[str, Any]],
    tmp_path: Path,
    tiny_options: list[str],
    number: signal.Signals,
    how: tuple[str, ...],
) -> None:
    words = ("train", "--dataset", "acdc", "--data", phantom_dir)
    settings = [*tiny_options, "--epochs", "12"]
    with subprocess.Popen(command(*words, "--out", tmp_path / "parts", *settings, *how)) as process:
        metrics = tmp_path / "parts" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, 300)
        process.send_signal(number)
        assert process.wait(300) == 1
    assert (tmp_path / "parts" / "checkpoints" / "last.pt").is_file()
    assert len(history(tmp_path / "parts")) < 12
    maag(*words, "--out", tmp_path / "parts", "--resume")
    parts = history(tmp_path / "parts")
    assert len(parts) == len(whole) == 12
    for one, other in zip(parts, whole, strict=True):
        # Where it was cut, losses were summed in two parts.
        assert one.pop("losses") == pytest.approx(other["losses"], rel=1e-6)
        assert one.pop("dice") == pytest.approx(other["dice"], rel=1e-6)
        rest = {key: value for key, value in other.items() if key not in ("losses", "dice")}
        assert one == pytest.approx(rest, rel=1e-6)
