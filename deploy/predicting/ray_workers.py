"""Process volumes with workers on a Ray cluster, each with its own runner; volumes of lost workers are retried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

from deploy.predicting.executor import num_threads_for
from deploy.predicting.job import Job, Task
from deploy.predicting.ledger import Entry
from deploy.predicting.task_queue import QueuedTask, TaskQueue
from deploy.predicting.temporary import keep_temporary_files_together
from deploy.predicting.volume_processor import VolumeProcessor, max_decoded_with
from deploy.predicting.volume_status import VolumeStatus
from maag.errors import MaagError, PredictionError, first_line
from maag.inference import Runner
from maag.train.launch.connection import LOGS, connected
from maag.train.launch.recovery import cause_of
from maag.train.launch.room import Room, require_room, takes_gpu

_WORKER_LOST = (RayActorError, ActorUnavailableError, NodeDiedError, OutOfMemoryError)
"""What Ray raises for a lost worker; these have no common base class."""
_MAX_FAILED_STARTS = 3  # in a row
_START_TIMEOUT_S = 600.0
"""How long to wait for a worker if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkersPlan:
    """Cluster and number of workers."""

    workers: int
    address: str | None
    """Address of a running cluster whose nodes reach inputs and output at the same paths; None starts one here."""
    gpu: bool | None
    """Whether each worker gets a GPU; None: if the cluster has any."""
    wait_minutes: float = 0.0
    """How long to wait for nodes that an autoscaler starts."""


class Worker:
    """Ray actor with a runner; Ray calls it from several threads."""

    _processor: VolumeProcessor

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        # Ray kills actors at the end and on interrupts, so no `finally` would remove fetched files.
        keep_temporary_files_together()

    def open(self, job: Job, open_runner: Callable[[], Runner]) -> None:
        """Open the model and the output; not in `__init__`, whose errors Ray does not pass on intact."""
        self._processor = VolumeProcessor(job, open_runner())

    def process(self, task: Task) -> Entry | VolumeStatus:
        """See VolumeProcessor."""
        return self._processor.process(task)


class RayWorkers:
    """Executor with workers on a Ray cluster.

    Args:
        open_runner: opens the model on any node; it is pickled with all its content.
        plan: cluster and number of workers.
        notify: called with a sentence about each lost worker.
    """

    def __init__(self, open_runner: Callable[[], Runner], plan: WorkersPlan, notify: Callable[[str], None]) -> None:
        self._open_runner = open_runner
        self._plan = plan
        self._notify = notify

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
        """See Executor.

        Raises:
            ConfigError: the cluster cannot be reached, or has too few resources.
            PredictionError: no worker is left.
        """
        plan = self._plan
        with connected(plan.address):
            gpu = takes_gpu(plan.gpu, plan.workers, plan.wait_minutes)
            room = require_room(plan.workers, plan.workers, gpu=gpu, wait_minutes=plan.wait_minutes)
            queue = TaskQueue(job, iter(tasks))
            if queue.next_task is None:
                return
            concurrency = max_concurrency(queue.next_task, job, room)
            start_worker = partial(_start_worker, job, ray.put(self._open_runner), room, concurrency)
            yield from _Dispatcher(queue, start_worker, concurrency, self._notify).run(plan.workers)


def max_concurrency(task: Task, job: Job, room: Room) -> int:
    """Volumes that a worker with this `room` processes at once: as many as a process with the same cores and GPU."""
    return num_threads_for(task, job, max_decoded_with(room.cpus, gpu=room.gpus > 0))


@dataclass(slots=True, eq=False)
class _WorkerHandle:
    """A worker as the dispatcher sees it."""

    actor: Any
    ready: Any
    """Ray's reference to the result of `open`."""
    in_flight: dict[Any, QueuedTask] = field(default_factory=dict)
    """Assigned tasks by Ray's reference to the result."""
    exclusive: bool = False
    """Whether its only task is a retry, which may crash it, so it gets no other."""


def _start_worker(job: Job, open_runner: Any, room: Room, concurrency: int) -> _WorkerHandle:
    options = {"num_cpus": room.cpus, "num_gpus": room.gpus, "max_concurrency": concurrency}
    actor: Any = ray.remote(Worker).options(**options).remote(room.cpus)
    return _WorkerHandle(actor, actor.open.remote(job, open_runner))


class _Dispatcher:
    """Assigns tasks to workers, a few to each, and requeues those of lost workers."""

    def __init__(
        self,
        queue: TaskQueue,
        start_worker: Callable[[], _WorkerHandle],
        concurrency: int,
        notify: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._start_worker = start_worker
        self._concurrency = concurrency
        self._notify = notify
        self._starting: list[_WorkerHandle] = []
        self._workers: list[_WorkerHandle] = []
        self._failed_starts = 0

    def run(self, num_workers: int) -> Iterator[Entry | VolumeStatus]:
        """Yield the outcome of each task."""
        self._starting = [self._start_worker() for _ in range(num_workers)]
        while True:
            self._assign_tasks()
            in_flight = [ref for worker in self._workers for ref in worker.in_flight]
            if not in_flight and not self._queue.has_tasks():
                return
            starting = [worker.ready for worker in self._starting]
            done, _ = ray.wait([*in_flight, *starting], timeout=_START_TIMEOUT_S)
            if not done and not self._workers:
                raise PredictionError(
                    f"no worker is left and none could be started in {_START_TIMEOUT_S / 60:.0f} minutes; see Ray's "
                    f"logs in {LOGS}, and continue with --resume"
                )
            for ref in done:
                yield from self._handle(ref)

    def _assign_tasks(self) -> None:
        limit = self._concurrency + 1  # one more than it processes at once, so that the next starts without a delay
        for worker in self._workers:
            if not worker.in_flight and (retry := self._queue.pop_retry()):
                self._assign(worker, retry)
                worker.exclusive = True
            while not worker.exclusive and len(worker.in_flight) < limit and (new := self._queue.pop_new()):
                self._assign(worker, new)

    def _assign(self, worker: _WorkerHandle, queued: QueuedTask) -> None:
        worker.in_flight[worker.actor.process.remote(queued.task)] = queued

    def _handle(self, ref: Any) -> Iterator[Entry | VolumeStatus]:
        """Handle a finished call: the start of a worker, or a task."""
        for worker in self._starting:
            if worker.ready == ref:
                self._finish_start(worker)
                return
        for worker in self._workers:
            if ref in worker.in_flight:
                yield from self._finish_task(worker, ref)
                return

    def _finish_start(self, worker: _WorkerHandle) -> None:
        self._starting.remove(worker)
        try:
            _result(worker.ready)
        except _WORKER_LOST as error:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise PredictionError(
                    f"workers end right after they start ({first_line(error)}); see Ray's logs in {LOGS}"
                ) from error
            self._starting.append(self._start_worker())
        else:
            self._failed_starts = 0
            self._workers.append(worker)

    def _finish_task(self, worker: _WorkerHandle, ref: Any) -> Iterator[Entry | VolumeStatus]:
        try:
            result = _result(ref)
        except _WORKER_LOST:
            yield from self._replace(worker)
            return
        queued = worker.in_flight.pop(ref)
        worker.exclusive = False
        yield queued.outcome(result)

    def _replace(self, lost: _WorkerHandle) -> Iterator[Entry]:
        """Start a new worker; retry the lost one's tasks one at a time, as one of them may be the cause."""
        self._workers.remove(lost)
        ray.kill(lost.actor)
        self._notify(
            f"Lost a worker (volumes in progress: {len(lost.in_flight)}): others take over, and a new worker is started"
        )
        self._starting.append(self._start_worker())
        yield from self._queue.requeue(lost.in_flight.values(), exclusive=lost.exclusive)


def _result(ref: Any) -> Any:
    """The return value of a call. Raises MaagError as the worker raised it, and Ray's own errors."""
    try:
        return ray.get(ref)
    except (RayTaskError, RayActorError) as error:
        cause = cause_of(error)
        if isinstance(cause, MaagError):
            raise cause from None
        raise
