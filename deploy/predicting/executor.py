"""What executes the tasks of a job: the protocol, and threads of this process around one runner."""

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

_MIN_THREADS_FOR_STORES = 8  # most wait for the network


class Executor(Protocol):
    """Processes the volumes of a job, in any order."""

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
        """Yield the outcome of each task as it ends; tasks are taken only when a thread or worker can start them soon.

        Raises:
            StorageError: the output or its ledger cannot be written.
        """


class Threads:
    """Executor with threads of this process.

    Args:
        runner: runs the model.
        num_threads: number of threads; None: as many as keep the runner busy.
    """

    def __init__(self, runner: Runner, num_threads: int | None = None) -> None:
        self._runner = runner
        self._num_threads = num_threads

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
        """See Executor."""
        processor = VolumeProcessor(job, self._runner)
        pool: ThreadPoolExecutor | None = None
        in_flight: set[Future[Entry | VolumeStatus]] = set()
        try:
            for task in tasks:
                if pool is None:
                    num_threads = self._num_threads or num_threads_for(task, job, max_decoded(self._runner))
                    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="volume")
                in_flight.add(pool.submit(processor.process, task))
                if len(in_flight) > num_threads:
                    done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while in_flight:
                done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def num_threads_for(task: Task, job: Job, minimum: int) -> int:
    """Threads that keep one runner busy: `minimum`, or more if images come from or go to a store."""
    return max(minimum, _MIN_THREADS_FOR_STORES) if is_uri(task.source.place) or is_uri(job.out) else minimum
