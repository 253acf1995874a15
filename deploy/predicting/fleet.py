"""Workers on a Ray cluster that do volumes, each with a runner of its own; what a lost worker had is done by others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

from deploy.predicting.attempt import Worker, decoded_with
from deploy.predicting.charges import Charge, Charges
from deploy.predicting.crew import threads_for
from deploy.predicting.job import Job, Task
from deploy.predicting.ledger import Entry
from deploy.predicting.standing import Standing
from deploy.predicting.temporary import keep_temporary_files_together
from maag.errors import MaagError, PredictionError, first_line
from maag.inference import Runner
from maag.train.launch.connection import LOGS, connected
from maag.train.launch.recovery import cause_of
from maag.train.launch.room import Room, require_room, takes_gpu

_LOST = (RayActorError, ActorUnavailableError, NodeDiedError, OutOfMemoryError)
"""What Ray raises of a worker that is gone; not all are of one kind."""
_TRIES_TO_START = 3
_PATIENCE_S = 600.0
"""How long a fleet without a single worker waits for one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetPlan:
    """Where to predict, and with how many."""

    workers: int
    address: str | None
    """Of a running cluster, whose nodes reach inputs and output at the same places; None starts one here."""
    gpu: bool | None
    """One for each worker; None: where the cluster has any."""
    wait_minutes: float = 0.0
    """For nodes that an autoscaler starts."""


class Member:
    """A process of the cluster with a runner; Ray calls it from several threads."""

    _worker: Worker

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        # Ray kills members, at the end and when the user interrupts: no `finally` of theirs removes what was fetched.
        keep_temporary_files_together()

    def open(self, job: Job, open_runner: Callable[[], Runner]) -> None:
        """Open the model and the output. Not where it is made, from where Ray would not bring the error whole."""
        self._worker = Worker(job, open_runner())

    def attempt(self, task: Task) -> Entry | Standing:
        """See Worker."""
        return self._worker.attempt(task)


class Fleet:
    """A crew of Members.

    Args:
        open_runner: opens the model on any node; it travels there with all that it holds.
        plan: where.
        tell: is given sentences about workers that are lost.
    """

    def __init__(self, open_runner: Callable[[], Runner], plan: FleetPlan, tell: Callable[[str], None]) -> None:
        self._open_runner = open_runner
        self._plan = plan
        self._tell = tell

    def __call__(self, job: Job, tasks: Iterable[Task]) -> Iterator[Entry | Standing]:
        """See Crew.

        Raises:
            ConfigError: the cluster cannot be reached, or has no room.
            PredictionError: no worker is left.
        """
        plan = self._plan
        with connected(plan.address):
            gpu = takes_gpu(plan.gpu, plan.workers, plan.wait_minutes)
            room = require_room(plan.workers, plan.workers, gpu=gpu, wait_minutes=plan.wait_minutes)
            hire = _Hire(job, ray.put(self._open_runner), room)
            yield from _Dispatch(job, Charges(job, iter(tasks)), hire, self._tell).run(plan.workers)


def done_at_once(task: Task, job: Job, room: Room) -> int:
    """How many volumes a member with this `room` does at once: as many as a process with the same cores and GPU."""
    return threads_for(task, job, decoded_with(room.cpus, gpu=room.gpus > 0))


@dataclass(slots=True)
class _Hire:
    """Starts members."""

    job: Job
    open_runner: Any
    room: Room

    def __call__(self, num_threads: int) -> _Seat:
        options = {"num_cpus": self.room.cpus, "num_gpus": self.room.gpus, "max_concurrency": num_threads}
        handle: Any = ray.remote(Member).options(**options).remote(self.room.cpus)
        return _Seat(handle, handle.open.remote(self.job, self.open_runner))


@dataclass(slots=True, eq=False)
class _Seat:
    """A member as the dispatcher sees it."""

    handle: Any
    opened: Any
    """Ray's reference to that."""
    at_work: dict[Any, Charge] = field(default_factory=dict)
    """By Ray's reference to the result."""
    alone: bool = False
    """At a volume that may take it down, and at nothing else."""


class _Dispatch:
    """Hands out tasks, a few to each member, and takes back those of lost ones."""

    def __init__(self, job: Job, charges: Charges, hire: _Hire, tell: Callable[[str], None]) -> None:
        self._charges = charges
        self._hire = hire
        self._tell = tell
        self._seats: list[_Seat] = []
        self._hiring: list[_Seat] = []
        self._failed_starts = 0
        self._each = done_at_once(charges.next, job, hire.room) if charges.next else 1

    def run(self, workers: int) -> Iterator[Entry | Standing]:
        """What became of each task."""
        if not self._charges.are_left():
            return
        self._hiring = [self._hire(self._each) for _ in range(workers)]
        while True:
            self._hand_out()
            at_work = [ref for seat in self._seats for ref in seat.at_work]
            if not at_work and not self._charges.are_left():
                return
            # Hired members count while there is work for them, or nobody else to wait for.
            done, _ = ray.wait([*at_work, *(seat.opened for seat in self._hiring)], timeout=_PATIENCE_S)
            if not done and not self._seats:
                raise PredictionError(
                    f"no worker is left and none could be started in {_PATIENCE_S / 60:.0f} minutes; see Ray's logs in "
                    f"{LOGS}, and go on with --resume"
                )
            for ref in done:
                yield from self._take(ref)

    def _hand_out(self) -> None:
        for seat in self._seats:
            if not seat.at_work and (suspect := self._charges.take_suspect()):
                self._give(seat, suspect)
                seat.alone = True
            while not seat.alone and len(seat.at_work) <= self._each and (charge := self._charges.take_new()):
                self._give(seat, charge)

    def _give(self, seat: _Seat, charge: Charge) -> None:
        seat.at_work[seat.handle.attempt.remote(charge.task)] = charge

    def _take(self, ref: Any) -> Iterator[Entry | Standing]:
        for seat in [seat for seat in self._hiring if seat.opened == ref]:
            self._hiring.remove(seat)
            self._welcome(seat)
        for seat in [seat for seat in self._seats if ref in seat.at_work]:
            try:
                told = _value(ref)
            except _LOST:
                yield from self._lose(seat)
                continue
            charge = seat.at_work.pop(ref)
            seat.alone = False
            yield charge.result(told)

    def _welcome(self, seat: _Seat) -> None:
        try:
            _value(seat.opened)
        except _LOST as error:
            self._failed_starts += 1
            if self._failed_starts >= _TRIES_TO_START:
                raise PredictionError(
                    f"workers end as soon as they start ({first_line(error)}); see Ray's logs in {LOGS}"
                ) from error
            self._hiring.append(self._hire(self._each))
        else:
            self._seats.append(seat)

    def _lose(self, seat: _Seat) -> Iterator[Entry]:
        """Have a lost member's volumes done by others, one at a time, for one of them may be why; hire another."""
        self._seats.remove(seat)
        ray.kill(seat.handle)
        self._tell(f"Lost a worker with {len(seat.at_work)} volumes at hand: others do them, and a new one is started")
        self._hiring.append(self._hire(self._each))
        yield from self._charges.come_back(seat.at_work.values(), alone=seat.alone)


def _value(ref: Any) -> Any:
    """What a call returned. Raises MaagError as the member raised it, and Ray's own errors."""
    try:
        return ray.get(ref)
    except (RayTaskError, RayActorError) as error:
        cause = cause_of(error)
        if isinstance(cause, MaagError):
            raise cause from None
        raise
