from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from maag.cli.main import commands


def run(*words: object) -> str:
    done = CliRunner().invoke(commands, ["tune", "--dataset", "acdc", *map(str, words)])
    assert done.exit_code != 0
    return f"{done.output}{done.exception}"


def test_what_cannot_be_searched_is_said_before_ray_starts(
    phantom_dir: Path, tmp_path: Path, tiny_words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data = ("--data", phantom_dir)
    out = tmp_path / "search"
    assert "no such folder; expected patientNNN" in run("--data", tmp_path / "absent")
    assert "there is no search here to resume (no search.json); start without" in run(*data, "--resume", "--out", out)
    assert "no search of acdc here to resume; name one with --out" in run(*data, "--resume")
    assert "--resume goes on with the search's own settings" in run(*data, "--resume", "--out", out, "--preset", "fast")
    assert "data.scribbled_fraction=0.01 of 2 patients leaves none" in run(
        *data, "--out", out, *tiny_words, "--set", "data.scribbled_fraction=0.01"
    )
    assert not out.exists()
    out.mkdir()
    (out / "search.json").write_text(json.dumps({"format_version": 9}))
    assert "already holds a search; add --resume to continue it" in run(*data, "--out", out, *tiny_words)
    assert "format_version 9 is unknown; this maag reads 1" in run(*data, "--out", out, "--resume")
