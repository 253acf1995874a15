"""The metrics file and the TensorBoard curves of a resumed run."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maag.errors import StorageError
from maag.train.folder import RunFolder
from maag.train.journal import Journal
from maag.train.reports import EpochReport
from maag.train.validate import ValidationDice


def report(epoch: int) -> EpochReport:
    return EpochReport(
        epoch=epoch, epochs=9, step=10 * epoch, seconds=1.0, lr=1e-3, losses={"supervised": 0.5}, steps_per_second=2.0,
        validation=None, is_best=False,
    )  # fmt: skip


def epochs(run: RunFolder) -> list[int]:
    return [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()]


def test_resuming_drops_lines_after_the_checkpoint_and_truncated_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Journal(run, 0) as journal:
        for epoch in (1, 2, 3):
            journal.on_epoch(report(epoch))
    with run.metrics.open("a") as file:
        file.write('{"epoch": 4, "st')
    with Journal(run, 20) as journal:
        assert epochs(run) == [1, 2]
        journal.on_epoch(report(3))
        assert epochs(run) == [1, 2, 3]  # visible during the run


def curves(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(run.tensorboard)).Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_curves_contain_each_step_once_and_are_readable_during_the_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    dice = ValidationDice(per_class={"RV": 0.25}, mean=0.75)
    with Journal(run, 0) as journal:
        for epoch in (1, 2, 3):
            journal.on_epoch(report(epoch))
    with Journal(run, 20) as journal:
        journal.on_epoch(
            replace(report(3), losses={"supervised": 0.125}, lr=0.5, steps_per_second=4.0, validation=dice)
        )
        found = curves(run)
    assert found == {
        "loss/supervised": [(10, 0.5), (20, 0.5), (30, 0.125)],
        "lr": [(10, pytest.approx(1e-3)), (20, pytest.approx(1e-3)), (30, 0.5)],
        "steps_per_second": [(10, 2.0), (20, 2.0), (30, 4.0)],
        "dice/mean": [(30, 0.75)],
        "dice/RV": [(30, 0.25)],
    }


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_on_a_full_disk() -> None:
        with Journal(run, 0) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
            journal.on_epoch(report(1))

    try:
        with pytest.raises(StorageError, match=r"metrics\.jsonl"):
            write_on_a_full_disk()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
