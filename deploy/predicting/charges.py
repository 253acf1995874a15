"""Volumes in the hands of workers that may be lost: what is handed out next, taken back, and given up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deploy.predicting.job import Job, Task
from deploy.predicting.ledger import Entry, History, now, open_ledger, read_histories
from deploy.predicting.standing import Standing
from maag.storage.opening import open_store

TRIES_ALONE = 2
"""A volume that takes down so many workers that did nothing else is given up."""


@dataclass(slots=True)
class Charge:
    """A volume to do, and how it went so far."""

    given: Task
    """As it came."""
    stored: History | None = None
    """What the ledger has of it since a worker was lost while it had this one."""
    taken_down: int = 0
    """Workers that were lost with this one alone."""

    @property
    def task(self) -> Task:
        """What a worker is to do now."""
        return Task(self.given.source, self.stored or self.given.history)

    def result(self, told: Entry | Standing) -> Entry | Standing:
        """What became of it, by what its worker `told`: done, not skipped, where a lost one had stored it."""
        last = self.stored.last if self.stored else None
        new = last != self.given.history.last
        return last if last and new and told is Standing.DONE else told


class Charges:
    """All volumes of a job.

    Args:
        job: what is the same for all of them; its ledger is asked what lost workers had stored.
        tasks: taken when there is a worker for them, but for the next one.
    """

    def __init__(self, job: Job, tasks: Iterator[Task]) -> None:
        self._job = job
        self._tasks = tasks
        self._suspects: deque[Charge] = deque()
        self.next = next(tasks, None)
        """The next of the tasks that nobody had yet; None where there is no more."""

    def are_left(self) -> bool:
        """Whether there is one to hand out."""
        return self.next is not None or bool(self._suspects)

    def take_suspect(self) -> Charge | None:
        """The first of those that a lost worker had, for one that is to have nothing else; None where there is none."""
        return self._suspects.popleft() if self._suspects else None

    def take_new(self) -> Charge | None:
        """The next one that nobody had yet; None where there is no more."""
        task = self.next
        if task is None:
            return None
        self.next = next(self._tasks, None)
        return Charge(task)

    def come_back(self, charges: Iterable[Charge], *, alone: bool) -> Iterator[Entry]:
        """Take back those of a lost worker, and give up, as a failure each, those that took down too many `alone`.

        Raises StorageError where the ledger cannot be read or written.
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
            error=f"{source.place}: took down {charge.taken_down} workers; it may need more memory than a worker has",
        )
        open_ledger(open_store(self._job.out), self._job.folder).append(entry)
        return entry
