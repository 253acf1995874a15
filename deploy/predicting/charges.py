"""Assignment of volumes to workers that may be lost: which is next, which are retried, and which are given up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deploy.predicting.job import Job, Task
from deploy.predicting.ledger import Entry, History, now, open_ledger, read_histories
from deploy.predicting.standing import Standing
from maag.storage.opening import open_store

TRIES_ALONE = 2
"""A volume is given up after it crashed this many workers that had no other volume."""


@dataclass(slots=True)
class Charge:
    """A volume and its attempts so far."""

    given: Task
    """The original task."""
    stored: History | None = None
    """Its history in the ledger, read when a worker that had it was lost."""
    taken_down: int = 0
    """Workers lost while they had only this volume."""

    @property
    def task(self) -> Task:
        """The task for the next worker."""
        return Task(self.given.source, self.stored or self.given.history)

    def result(self, reply: Entry | Standing) -> Entry | Standing:
        """Its outcome, given the worker's `reply`: done rather than skipped if a lost worker had stored it."""
        last = self.stored.last if self.stored else None
        new = last != self.given.history.last
        return last if last and new and reply is Standing.DONE else reply


class Charges:
    """All volumes of a job.

    Args:
        job: settings that all share; its ledger shows what lost workers had stored.
        tasks: taken one ahead of the workers.
    """

    def __init__(self, job: Job, tasks: Iterator[Task]) -> None:
        self._job = job
        self._tasks = tasks
        self._suspects: deque[Charge] = deque()
        self.next = next(tasks, None)
        """The next unassigned task; None at the end."""

    def are_left(self) -> bool:
        """Whether any volume can be assigned."""
        return self.next is not None or bool(self._suspects)

    def take_suspect(self) -> Charge | None:
        """The first volume of a lost worker, for a worker that gets no other; None if there is none."""
        return self._suspects.popleft() if self._suspects else None

    def take_new(self) -> Charge | None:
        """The next unassigned volume; None at the end."""
        task = self.next
        if task is None:
            return None
        self.next = next(self._tasks, None)
        return Charge(task)

    def come_back(self, charges: Iterable[Charge], *, alone: bool) -> Iterator[Entry]:
        """Take back the volumes of a lost worker; those that crashed too many workers `alone` fail.

        Raises StorageError if the ledger cannot be read or written.
        """
        stored = read_histories(open_store(self._job.out))
        for charge in charges:
            charge.taken_down += alone
            if charge.taken_down >= TRIES_ALONE:
                yield self._given_up(charge)
                continue
            charge.stored = stored.get(charge.given.source.target)
            self._suspects.append(charge)

    def _given_up(self, charge: Charge) -> Entry:
        source = charge.given.source
        entry = Entry(
            source=source.place,
            target=source.target,
            source_version=None,
            model=self._job.identity,
            target_md5=None,
            finished_at=now(),
            seconds=0.0,
            error=f"{source.place}: crashed {charge.taken_down} workers; it may need more memory than a worker has",
        )
        open_ledger(open_store(self._job.out), self._job.folder).append(entry)
        return entry
