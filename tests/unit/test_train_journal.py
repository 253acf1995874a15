from __future__ import annotations

import json
from pathlib import Path

from maag.train.folder import RunFolder
from maag.train.journal import Journal
from maag.train.reports import EpochReport


def report(epoch: int) -> EpochReport:
    return EpochReport(
        epoch=epoch, epochs=9, step=10 * epoch, seconds=1.0, lr=1e-3, losses={"supervised": 0.5}, steps_per_second=2.0,
        validation=None, is_best=False,
    )  # fmt: skip


def epochs(run: RunFolder) -> list[int]:
    return [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()]


def test_lines_beyond_the_checkpoint_and_lines_cut_short_are_dropped(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Journal(run, 0) as journal:
        for epoch in (1, 2, 3):
            journal.on_epoch(report(epoch))
    with run.metrics.open("a") as file:
        file.write('{"epoch": 4, "st')
    with Journal(run, 20) as journal:
        assert epochs(run) == [1, 2]
        journal.on_epoch(report(3))
    assert epochs(run) == [1, 2, 3]
