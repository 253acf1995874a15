"""An update recorded once and replayed: a GPU then starts some thousand kernels by one call instead of one by one.

Small networks are otherwise bound by the CPU that starts their kernels. What changes from step to step reaches the
recording through tensors that stay where they are: the batch, the learning rates, and the teacher's trust; random
numbers come from the state's generator, as seeded before each step. The numbers are those of the plain update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from maag.config.schema import Config
from maag.data.slices.batches import Batch
from maag.errors import TrainingError, first_line
from maag.train.state import TrainState
from maag.train.step import StepLosses, follow_up, play, update
from maag.train.team import ALONE

PLAIN_STEPS = 3
"""Steps done plainly at first, in which optimisers make their states and libraries choose and compile kernels."""

Update = Callable[[Batch], StepLosses]
T = TypeVar("T")


class Recorder(Protocol):
    """What can record work on a device, and do it again on the same memory."""

    def aside(self, work: Callable[[], StepLosses]) -> StepLosses:
        """Do `work` now, where recordings are made, so that nothing in it is new to the recording."""

    def record(self, work: Callable[[], StepLosses]) -> tuple[Callable[[], None], StepLosses]:
        """What does `work` each time it is called, and the tensors that then hold its losses.

        Raises RuntimeError where some of it cannot be recorded.
        """


class CudaRecorder:
    """Records CUDA graphs on a stream of its own."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._stream = torch.cuda.Stream(generator.device)  # type: ignore[no-untyped-call]

    def aside(self, work: Callable[[], StepLosses]) -> StepLosses:
        """See Recorder."""
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            losses = work()
        here.wait_stream(self._stream)
        return losses

    def record(self, work: Callable[[], StepLosses]) -> tuple[Callable[[], None], StepLosses]:
        """See Recorder."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, stream=self._stream):
            losses = work()
        return graph.replay, losses


def updates_of(
    state: TrainState, config: Config, recorder_of: Callable[[torch.Generator], Recorder] = CudaRecorder
) -> Update:
    """The quickest way to do `update` on the state's device: recorded on a GPU with one worker, unless asked not to.

    A team's networks cannot be recorded even where it has one worker: see `team_of_workers`.
    """
    if config.train.cuda_graph and state.noise.device.type == "cuda" and state.team is ALONE:
        return RecordedUpdate(state, config, recorder_of(state.noise))
    return lambda batch: update(state, batch, config)


class Recording(NamedTuple):
    """A recorded `play`, and the memory that it reads and writes."""

    replay: Callable[[], None]
    batch: Batch
    rates: list[Tensor]
    trust: Tensor
    names: list[str]
    losses: Tensor


class RecordedUpdate:
    """`update` of one state, whose first steps are plain and whose others replay a recording."""

    def __init__(self, state: TrainState, config: Config, recorder: Recorder) -> None:
        self._state, self._config, self._recorder = state, config, recorder
        self._recording: Recording | None = None
        self._plain_steps = 0

    def __call__(self, batch: Batch) -> StepLosses:
        """Do one step; losses as `update` has them.

        Raises:
            TrainingError: the step cannot be recorded.
        """
        if self._plain_steps < PLAIN_STEPS:
            self._plain_steps += 1
            return self._recorder.aside(lambda: update(self._state, batch, self._config))
        if self._recording is None:
            self._recording = self._record(batch)
        _copy(batch, self._recording.batch)
        for rate, optimizer in zip(self._recording.rates, self._state.optimizers, strict=True):
            rate.fill_(optimizer.param_groups[0]["lr"])
        self._recording.trust.fill_(self._state.trust)
        self._recording.replay()
        follow_up(self._state, self._config)
        return dict(zip(self._recording.names, self._recording.losses.clone(), strict=True))

    def _record(self, batch: Batch) -> Recording:
        state = self._state
        static = _map_tensors(batch, torch.clone)
        device = batch.images.device
        rates = [torch.zeros((), device=device) for _ in state.optimizers]
        trust = torch.zeros((), device=device)
        names: list[str] = []

        def work() -> StepLosses:
            losses = play(state, static, self._config)
            names[:] = losses
            return {"all": torch.stack(list(losses.values()))}

        with _on_tensors(state, rates, trust):
            for optimizer in state.optimizers:
                optimizer.zero_grad(set_to_none=True)
            try:
                replay, losses = self._recorder.record(work)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as problem:
                raise TrainingError(
                    f"a training step could not be recorded ({first_line(problem)}); go on with "
                    "--set train.cuda_graph=false"
                ) from problem
        return Recording(replay, static, rates, trust, names, losses["all"])


@contextmanager
def _on_tensors(state: TrainState, rates: list[Tensor], trust: Tensor) -> Iterator[None]:
    """While it lasts, rates and trust are tensors that a recording can read anew, and optimisers may be recorded."""
    groups = [optimizer.param_groups[0] for optimizer in state.optimizers]
    plain = [(group["lr"], group["capturable"]) for group in groups]
    plain_trust = state.trust
    for group, rate in zip(groups, rates, strict=True):
        group.update(lr=rate, capturable=True)
    state.trust = trust
    try:
        yield
    finally:
        for group, (lr, capturable) in zip(groups, plain, strict=True):
            group.update(lr=lr, capturable=capturable)
        state.trust = plain_trust


def _map_tensors(part: T, change: Callable[[Tensor], Tensor]) -> T:
    """Batches are tuples within tuples; what is not a tensor stays."""
    if isinstance(part, Tensor):
        return change(part)  # type: ignore[return-value]
    if isinstance(part, tuple):
        return type(part)(*(_map_tensors(each, change) for each in part))
    return part


def _copy(source: Any, target: Any) -> None:
    if isinstance(source, Tensor):
        target.copy_(source)
    elif isinstance(source, tuple):
        for one, other in zip(source, target, strict=True):
            _copy(one, other)
