"""Process volumes with workers on a Ray cluster, each with its own runner; volumes of lost workers are retried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

from deploy.predicting.crew import threads_for
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

_LOST = (RayActorError, ActorUnavailableError, NodeDiedError, OutOfMemoryError)
"""What Ray raises for a lost worker; these have no common base class."""
_TRIES_TO_START = 3
_PATIENCE_S = 600.0
"""How long to wait for a worker if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetPlan:
    """Cluster and number of workers."""

    workers: int
    address: str | None
    """Address of a running cluster whose nodes reach inputs and output at the same paths; None starts one here."""
    gpu: bool | None
    """Whether each worker gets a GPU; None: if the cluster has any."""
    wait_minutes: float = 0.0
    """How long to wait for nodes that an autoscaler starts."""


class Member:
    """A worker process of the cluster with a runner; Ray calls it from several threads."""

    _processor: VolumeProcessor

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        # Ray kills actors at the end and on interrupts, so no `finally` would remove fetched files.
        keep_temporary_files_together()

    def open(self, job: Job, open_runner: Callable[[], Runner]) -> None:
        """Open the model and the output; not in `__init__`, whose errors Ray does not pass on intact."""
        self._processor = VolumeProcessor(job, open_runner())

    def attempt(self, task: Task) -> Entry | VolumeStatus:
        """See Worker."""
        return self._processor.process(task)


class Fleet:
    """A crew of workers on a Ray cluster.

    Args:
        open_runner: opens the model on any node; it is pickled with all its content.
        plan: cluster and number of workers.
        tell: called with a sentence about each lost worker.
    """

    def __init__(self, open_runner: Callable[[], Runner], plan: FleetPlan, tell: Callable[[str], None]) -> None:
        self._open_runner = open_runner
        self._plan = plan
        self._tell = tell

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | VolumeStatus]:
        """See Crew.

        Raises:
            ConfigError: the cluster cannot be reached, or has too few resources.
            PredictionError: no worker is left.
        """
        plan = self._plan
        with connected(plan.address):
            gpu = takes_gpu(plan.gpu, plan.workers, plan.wait_minutes)
            room = require_room(plan.workers, plan.workers, gpu=gpu, wait_minutes=plan.wait_minutes)
            hire = _Hire(job, ray.put(self._open_runner), room)
            yield from _Dispatch(job, TaskQueue(job, iter(tasks)), hire, self._tell).run(plan.workers)


def done_at_once(task: Task, job: Job, room: Room) -> int:
    """Volumes that a worker with this `room` processes at once: as many as a process with the same cores and GPU."""
    return threads_for(task, job, max_decoded_with(room.cpus, gpu=room.gpus > 0))


@dataclass(slots=True)
class _Hire:
    """Starts workers."""

    job: Job
    open_runner: Any
    room: Room

    def __call__(self, num_threads: int) -> _Seat:
        options = {"num_cpus": self.room.cpus, "num_gpus": self.room.gpus, "max_concurrency": num_threads}
        handle: Any = ray.remote(Member).options(**options).remote(self.room.cpus)
        return _Seat(handle, handle.open.remote(self.job, self.open_runner))


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker as the dispatcher sees it."""

    handle: Any
    opened: Any
    """Ray's reference to the result of `open`."""
    at_work: dict[Any, QueuedTask] = field(default_factory=dict)
    """Assigned volumes by Ray's reference to the result."""
    alone: bool = False
    """Whether it has a single volume that may crash it, and gets no other."""


class _Dispatch:
    """Assigns tasks to workers, a few to each, and takes back those of lost workers."""

    def __init__(self, job: Job, queue: TaskQueue, hire: _Hire, tell: Callable[[str], None]) -> None:
        self._queue = queue
        self._hire = hire
        self._tell = tell
        self._seats: list[_Seat] = []
        self._hiring: list[_Seat] = []
        self._failed_starts = 0
        self._each = done_at_once(queue.next_task, job, hire.room) if queue.next_task else 1

    def run(self, workers: int) -> Iterator[Entry | VolumeStatus]:
        """The outcome of each task."""
        if not self._queue.has_tasks():
            return
        self._hiring = [self._hire(self._each) for _ in range(workers)]
        while True:
            self._hand_out()
            at_work = [ref for seat in self._seats for ref in seat.at_work]
            if not at_work and not self._queue.has_tasks():
                return
            # Also wait for workers that are starting.
            done, _ = ray.wait([*at_work, *(seat.opened for seat in self._hiring)], timeout=_PATIENCE_S)
            if not done and not self._seats:
                raise PredictionError(
                    f"no worker is left and none could be started in {_PATIENCE_S / 60:.0f} minutes; see Ray's logs in "
                    f"{LOGS}, and continue with --resume"
                )
            for ref in done:
                yield from self._take(ref)

    def _hand_out(self) -> None:
        for seat in self._seats:
            if not seat.at_work and (suspect := self._queue.pop_retry()):
                self._give(seat, suspect)
                seat.alone = True
            while not seat.alone and len(seat.at_work) <= self._each and (queued := self._queue.pop_new()):
                self._give(seat, queued)

    def _give(self, seat: _Seat, queued: QueuedTask) -> None:
        seat.at_work[seat.handle.attempt.remote(queued.task)] = queued

    def _take(self, ref: Any) -> Iterator[Entry | VolumeStatus]:
        for seat in [seat for seat in self._hiring if seat.opened == ref]:
            self._hiring.remove(seat)
            self._welcome(seat)
        for seat in [seat for seat in self._seats if ref in seat.at_work]:
            try:
                reply = _value(ref)
            except _LOST:
                yield from self._lose(seat)
                continue
            queued = seat.at_work.pop(ref)
            seat.alone = False
            yield queued.outcome(reply)

    def _welcome(self, seat: _Seat) -> None:
        try:
            _value(seat.opened)
        except _LOST as error:
            self._failed_starts += 1
            if self._failed_starts >= _TRIES_TO_START:
                raise PredictionError(
                    f"workers end right after they start ({first_line(error)}); see Ray's logs in {LOGS}"
                ) from error
            self._hiring.append(self._hire(self._each))
        else:
            self._seats.append(seat)

    def _lose(self, seat: _Seat) -> Iterator[Entry]:
        """Retry a lost worker's volumes one at a time, as one of them may be the cause; start a new worker."""
        self._seats.remove(seat)
        ray.kill(seat.handle)
        self._tell(f"Lost a worker with {len(seat.at_work)} volumes: others take over, and a new worker is started")
        self._hiring.append(self._hire(self._each))
        yield from self._queue.requeue(seat.at_work.values(), exclusive=seat.alone)


def _value(ref: Any) -> Any:
    """The return value of a call. Raises MaagError as the worker raised it, and Ray's own errors."""
    try:
        return ray.get(ref)
    except (RayTaskError, RayActorError) as error:
        cause = cause_of(error)
        if isinstance(cause, MaagError):
            raise cause from None
        raise
