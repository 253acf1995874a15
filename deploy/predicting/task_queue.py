"""Queue of the volumes of a job for workers that may be lost: new ones, retries, and those that fail for good."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deploy.inputs.input_lists import absolute_place
from deploy.predicting.job import Job, Task
from deploy.predicting.ledger import Entry, History, now, open_ledger, read_histories
from deploy.predicting.volume_status import VolumeStatus
from maag.storage.opening import open_store

MAX_CRASHES = 2
"""A volume fails after it crashed this many workers that had no other volume."""


@dataclass(slots=True)
class QueuedTask:
    """A task and its retries so far."""

    original: Task
    history: History | None = None
    """The volume's history in the ledger, read again when a worker that had it was lost."""
    crashes: int = 0
    """Workers lost while they had only this volume."""

    @property
    def task(self) -> Task:
        """The task for the next worker."""
        return Task(self.original.source, self.history or self.original.history)

    def outcome(self, result: Entry | VolumeStatus) -> Entry | VolumeStatus:
        """Outcome, given the worker's `result`: done rather than skipped if a lost worker had stored the labels."""
        last = self.history.last if self.history else None
        new = last != self.original.history.last
        return last if last and new and result is VolumeStatus.DONE else result


class TaskQueue:
    """All tasks of a job.

    Args:
        job: settings that all share; its ledger shows what lost workers had stored.
        tasks: taken one ahead of the workers.
    """

    def __init__(self, job: Job, tasks: Iterator[Task]) -> None:
        self._job = job
        self._tasks = tasks
        self._retries: deque[QueuedTask] = deque()
        self.next_task = next(tasks, None)
        """The next new task; None at the end."""

    def has_tasks(self) -> bool:
        """Whether any task, new or retried, can be assigned."""
        return self.next_task is not None or bool(self._retries)

    def pop_retry(self) -> QueuedTask | None:
        """The first task of a lost worker, for a worker that gets no other; None if there is none."""
        return self._retries.popleft() if self._retries else None

    def pop_new(self) -> QueuedTask | None:
        """The next new task; None at the end."""
        task = self.next_task
        if task is None:
            return None
        self.next_task = next(self._tasks, None)
        return QueuedTask(task)

    def requeue(self, lost: Iterable[QueuedTask], *, exclusive: bool) -> Iterator[Entry]:
        """Queue the tasks of a lost worker for a retry; yield an error for those that crashed too many workers.

        Args:
            lost: the tasks that the worker had.
            exclusive: the worker had a single task, which counts as the cause of the crash.

        Raises:
            StorageError: the ledger cannot be read or written.
        """
        histories = read_histories(open_store(self._job.out))
        for queued in lost:
            queued.crashes += exclusive
            if queued.crashes >= MAX_CRASHES:
                yield self._fail(queued)
                continue
            queued.history = histories.get(queued.original.source.target)
            self._retries.append(queued)

    def _fail(self, queued: QueuedTask) -> Entry:
        source = queued.original.source
        entry = Entry(
            source=absolute_place(source.place),
            target=source.target,
            source_version=None,
            model=self._job.identity,
            target_md5=None,
            finished_at=now(),
            seconds=0.0,
            error=f"{source.place}: crashed {queued.crashes} workers; it may need more memory than a worker has",
        )
        open_ledger(open_store(self._job.out), self._job.folder).append(entry)
        return entry
