"""What is handed out, taken back and given up when workers are lost; without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from threshold_runner import DATA, ThresholdRunner, read_ledger, run

from deploy.predicting.batch import plan
from deploy.predicting.job import Job, Task, Work
from deploy.predicting.ledger import History, read_histories
from deploy.predicting.task_queue import MAX_CRASHES, QueuedTask, TaskQueue
from deploy.predicting.volume_status import VolumeStatus
from maag.storage.opening import open_store


def queue_of_two(scans: Path, out: Path) -> TaskQueue:
    """A queue of two volumes, with their histories in the ledger."""
    job = Job(data=DATA, work=Work(), model_digest="m1", out=str(out))
    histories = read_histories(open_store(str(out)))
    tasks = (Task(source, histories.get(source.target, History())) for source in plan([scans], out))
    return TaskQueue(job, tasks)


@pytest.fixture
def queue(scans: Path, out: Path) -> TaskQueue:
    """Queue of two volumes, neither of them done."""
    out.mkdir()
    return queue_of_two(scans, out)


def pop(queue: TaskQueue) -> QueuedTask:
    queued = queue.pop_new()
    assert queued is not None
    return queued


def test_each_volume_is_handed_out_once(queue: TaskQueue) -> None:
    targets = [pop(queue).task.source.target, pop(queue).task.source.target]
    assert targets == ["a.nii.gz", "deep/er/b.nii"]
    assert queue.pop_new() is queue.pop_retry() is None
    assert not queue.has_tasks()


def test_volumes_of_a_lost_worker_are_handed_out_again(queue: TaskQueue, out: Path) -> None:
    first, second = pop(queue), pop(queue)
    assert list(queue.requeue([first, second], exclusive=False)) == []
    assert queue.has_tasks()
    assert queue.pop_retry() is first
    assert queue.pop_retry() is second
    assert not queue.has_tasks()
    assert not (out / "ledger.jsonl").exists()


def test_a_volume_that_crashes_several_workers_alone_is_given_up(queue: TaskQueue, out: Path) -> None:
    queued = pop(queue)
    assert list(queue.requeue([queued], exclusive=False)) == []
    for _ in range(MAX_CRASHES - 1):
        assert list(queue.requeue([queued], exclusive=True)) == []
    (entry,) = queue.requeue([queued], exclusive=True)
    assert entry.error == (
        f"{queued.original.source.place}: crashed {MAX_CRASHES} workers; it may need more memory than a worker has"
    )
    (line,) = read_ledger(out)
    assert (line["target"], line["error"], line["target_md5"]) == ("a.nii.gz", entry.error, None)


def test_labels_stored_by_a_lost_worker_count_as_done_not_skipped(
    queue: TaskQueue, scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    queued = pop(queue)
    run(scans, out, runner)  # as the worker did before it was lost
    assert list(queue.requeue([queued], exclusive=False)) == []
    assert queued.task.history.last is not None
    assert queued.outcome(VolumeStatus.DONE) is queued.task.history.last
    assert queued.outcome(VolumeStatus.EDITED) is VolumeStatus.EDITED


def test_labels_of_an_earlier_call_count_as_skipped_despite_a_lost_worker(
    scans: Path, out: Path, runner: ThresholdRunner
) -> None:
    run(scans, out, runner)
    queue = queue_of_two(scans, out)
    queued = pop(queue)
    assert list(queue.requeue([queued], exclusive=False)) == []
    assert queued.task.history.last is not None
    assert queued.outcome(VolumeStatus.DONE) is VolumeStatus.DONE
