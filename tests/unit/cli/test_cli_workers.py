"""The options of `maag train` and `maag tune` for clusters, up to the point where a cluster starts."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from maag.cli.main import commands
from maag.cli.options import WorkerCount
from maag.errors import ConfigError


@pytest.mark.parametrize(("text", "expected"), [("1", (1, 1)), ("4", (4, 4)), ("2:8", (2, 8)), ("3:3", (3, 3))])
def test_worker_counts_are_parsed(text: str, expected: tuple[int, int]) -> None:
    assert WorkerCount().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["0", "0:2", "5:2", "-1", "two", "1:", ":3", "1:2:3", "1.5", ""])
def test_invalid_worker_counts_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number from 1"):
        WorkerCount().convert(text, None, None)


def test_more_workers_than_slices_in_a_batch_are_refused_before_a_cluster_starts(
    phantom_dir: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    words = ["train", "--dataset", "acdc", "--data", str(phantom_dir), *tiny_options, "--set", "optim.batch_size=1"]
    result = CliRunner().invoke(commands, [*words, "--workers", "2", "--out", str(tmp_path / "few")])
    assert isinstance(result.exception, ConfigError)
    assert "2 workers cannot share batches of 1 slices" in str(result.exception)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize(("command", "what"), [("train", "run"), ("tune", "search")])
def test_resume_if_there_requires_out(command: str, what: str, tmp_path: Path) -> None:
    arguments = [command, "--dataset", "acdc", "--data", str(tmp_path), "--resume-if-there"]
    result = CliRunner().invoke(commands, arguments)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == f"--resume-if-there: name the {what} with --out"
