"""Process volumes with threads of this process around one runner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from deploy.predicting.job import Job, Task
from deploy.predicting.ledger import Entry
from deploy.predicting.volume_processor import VolumeProcessor, max_decoded
from deploy.predicting.volume_status import VolumeStatus
from maag.inference import Runner
from maag.storage.keys import is_uri

_THREADS_FOR_STORES = 8  # most wait for the network


class Crew(Protocol):
    """Processes volumes, in any order."""

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
        """The outcome of each task as it ends; tasks are taken when there is room for them.

        Raises:
            StorageError: the output or its ledger cannot be written.
        """


class Threads:
    """Threads of this process.

    Args:
        runner: runs the model.
        number: number of threads; None: as many as keep the runner busy.
    """

    def __init__(self, runner: Runner, number: int | None = None) -> None:
        self._runner = runner
        self._number = number

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
        """See Crew."""
        processor = VolumeProcessor(job, self._runner)
        pool: ThreadPoolExecutor | None = None
        waiting: set[Future[Entry | VolumeStatus]] = set()
        try:
            for task in tasks:
                if pool is None:
                    number = self._number or threads_for(task, job, max_decoded(self._runner))
                    pool = ThreadPoolExecutor(number, thread_name_prefix="volume")
                waiting.add(pool.submit(processor.process, task))
                if len(waiting) > number:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def threads_for(task: Task, job: Job, enough: int) -> int:
    """Threads that keep one runner busy: `enough`, or more if images come from or go to a store."""
    return max(enough, _THREADS_FOR_STORES) if is_uri(task.source.place) or is_uri(job.out) else enough
