"""Two concurrent predictions that write to one output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from maag_subprocess import Command
from random_volumes import assert_labels_match_model, volume_bytes, volume_name

pytestmark = pytest.mark.integration


def test_two_jobs_on_one_output_do_not_corrupt_it(artifact: Path, tmp_path: Path) -> None:
    volumes = {volume_name(place): volume_bytes(place) for place in range(40)}
    for name, content in volumes.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    words = ("predict", tmp_path / "in", "--model", artifact, "--out", tmp_path / "out")
    jobs = [Command(*words) for _ in range(2)]
    assert [job.wait_for_exit()[0] for job in jobs] == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert sorted(line["target"] for line in lines) == sorted([*volumes, *volumes])
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")} == {
        "ledger.jsonl",
        *volumes,
    }
    for name in sorted(volumes)[::10]:
        assert_labels_match_model((tmp_path / "out" / name).read_bytes(), volumes[name], artifact, tmp_path)
