"""What is handed out, taken back and given up when workers are lost; without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from bright_runner import DATA, BrightIsForeground, ledger, run

from deploy.predicting.batch import plan
from deploy.predicting.charges import TRIES_ALONE, Charge, Charges
from deploy.predicting.job import Job, Task, Work
from deploy.predicting.ledger import History, read_histories
from deploy.predicting.standing import Standing
from maag.storage.opening import open_store


def of_two(scans: Path, out: Path) -> Charges:
    """Charges of two volumes, with what the ledger has of them."""
    job = Job(data=DATA, work=Work(), model_digest="m1", out=str(out))
    histories = read_histories(open_store(str(out)))
    tasks = (Task(source, histories.get(source.target, History())) for source in plan([scans], out))
    return Charges(job, tasks)


@pytest.fixture
def charges(scans: Path, out: Path) -> Charges:
    """Of two volumes of which nothing is done."""
    out.mkdir()
    return of_two(scans, out)


def taken(charges: Charges) -> Charge:
    charge = charges.take_new()
    assert charge is not None
    return charge


def test_each_is_handed_out_once(charges: Charges) -> None:
    targets = [taken(charges).task.source.target, taken(charges).task.source.target]
    assert targets == ["a.nii.gz", "deep/er/b.nii"]
    assert charges.take_new() is charges.take_suspect() is None
    assert not charges.are_left()


def test_those_of_a_lost_worker_are_handed_out_again(charges: Charges, out: Path) -> None:
    first, second = taken(charges), taken(charges)
    assert list(charges.come_back([first, second], alone=False)) == []
    assert charges.are_left()
    assert charges.take_suspect() is first
    assert charges.take_suspect() is second
    assert not charges.are_left()
    assert not (out / "ledger.jsonl").exists()


def test_what_takes_down_workers_that_had_nothing_else_is_given_up(charges: Charges, out: Path) -> None:
    charge = taken(charges)
    assert list(charges.come_back([charge], alone=False)) == []
    for _ in range(TRIES_ALONE - 1):
        assert list(charges.come_back([charge], alone=True)) == []
    (entry,) = charges.come_back([charge], alone=True)
    assert entry.error == (
        f"{charge.given.source.place}: crashed {TRIES_ALONE} workers; it may need more memory than a worker has"
    )
    (line,) = ledger(out)
    assert (line["target"], line["error"], line["target_md5"]) == ("a.nii.gz", entry.error, None)


def test_what_a_lost_worker_had_stored_is_done_and_not_skipped(
    charges: Charges, scans: Path, out: Path, runner: BrightIsForeground
) -> None:
    charge = taken(charges)
    run(scans, out, runner)  # as the worker did before it was lost
    assert list(charges.come_back([charge], alone=False)) == []
    assert charge.task.history.last is not None
    assert charge.result(Standing.DONE) is charge.task.history.last
    assert charge.result(Standing.CHANGED) is Standing.CHANGED


def test_what_was_done_before_is_skipped_though_its_worker_is_lost(
    scans: Path, out: Path, runner: BrightIsForeground
) -> None:
    run(scans, out, runner)
    charges = of_two(scans, out)
    charge = taken(charges)
    assert list(charges.come_back([charge], alone=False)) == []
    assert charge.task.history.last is not None
    assert charge.result(Standing.DONE) is Standing.DONE
