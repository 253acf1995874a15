"""Which volumes are handed out, returned and given up when workers are lost; without Ray."""

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


def charges_of_two(scans: Path, out: Path) -> Charges:
    """Charges of two volumes, with their histories from the ledger."""
    job = Job(data=DATA, work=Work(), model_digest="m1", out=str(out))
    histories = read_histories(open_store(str(out)))
    tasks = (Task(source, histories.get(source.target, History())) for source in plan([scans], out))
    return Charges(job, tasks)


@pytest.fixture
def charges(scans: Path, out: Path) -> Charges:
    """Charges of two volumes, neither of them done."""
    out.mkdir()
    return charges_of_two(scans, out)


def take(charges: Charges) -> Charge:
    charge = charges.take_new()
    assert charge is not None
    return charge


def test_each_volume_is_handed_out_once(charges: Charges) -> None:
    targets = [take(charges).task.source.target, take(charges).task.source.target]
    assert targets == ["a.nii.gz", "deep/er/b.nii"]
    assert charges.take_new() is charges.take_suspect() is None
    assert not charges.are_left()


def test_charges_of_a_lost_worker_are_handed_out_again(charges: Charges, out: Path) -> None:
    first, second = take(charges), take(charges)
    assert list(charges.come_back([first, second], alone=False)) == []
    assert charges.are_left()
    assert charges.take_suspect() is first
    assert charges.take_suspect() is second
    assert not charges.are_left()
    assert not (out / "ledger.jsonl").exists()


def test_a_volume_that_crashes_several_workers_alone_is_given_up(charges: Charges, out: Path) -> None:
    charge = take(charges)
    assert list(charges.come_back([charge], alone=False)) == []
    for _ in range(TRIES_ALONE - 1):
        assert list(charges.come_back([charge], alone=True)) == []
    (entry,) = charges.come_back([charge], alone=True)
    assert entry.error == (
        f"{charge.given.source.place}: crashed {TRIES_ALONE} workers; it may need more memory than a worker has"
    )
    (line,) = ledger(out)
    assert (line["target"], line["error"], line["target_md5"]) == ("a.nii.gz", entry.error, None)


def test_labels_stored_by_a_lost_worker_count_as_done_not_skipped(
    charges: Charges, scans: Path, out: Path, runner: BrightIsForeground
) -> None:
    charge = take(charges)
    run(scans, out, runner)  # as the worker did before it was lost
    assert list(charges.come_back([charge], alone=False)) == []
    assert charge.task.history.last is not None
    assert charge.result(Standing.DONE) is charge.task.history.last
    assert charge.result(Standing.CHANGED) is Standing.CHANGED


def test_labels_of_an_earlier_call_count_as_skipped_despite_a_lost_worker(
    scans: Path, out: Path, runner: BrightIsForeground
) -> None:
    run(scans, out, runner)
    charges = charges_of_two(scans, out)
    charge = take(charges)
    assert list(charges.come_back([charge], alone=False)) == []
    assert charge.task.history.last is not None
    assert charge.result(Standing.DONE) is Standing.DONE
