"""A training step recorded as a CUDA graph and replayed, so that one call launches its thousand or so kernels.

Without it, small networks are limited by the CPU that launches the kernels. Everything that changes from step to step
is read from tensors at fixed addresses: the batch, the learning rates and the ramp. Random numbers come from the
state's generator, seeded before each step. Results equal those of the plain update.
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
from maag.train.step import StepLosses, update, update_networks, update_teacher
from maag.train.team import ALONE

PLAIN_STEPS = 3
"""First steps, not recorded, in which optimisers allocate their states and libraries choose and compile kernels."""

Update = Callable[[Batch], StepLosses]
T = TypeVar("T")


class Recorder(Protocol):
    """Records work on a device and replays it on the same memory."""

    def warm_up(self, work: Callable[[], StepLosses]) -> StepLosses:
        """Do `work` now, on the stream that records, and return its losses."""

    def record(self, work: Callable[[], StepLosses]) -> tuple[Callable[[], None], StepLosses]:
        """A function that replays `work`, and the tensors that then hold its losses.

        Raises RuntimeError if a part of it cannot be recorded.
        """


class CudaRecorder:
    """Records CUDA graphs on a side stream."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._stream = torch.cuda.Stream(generator.device)  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], StepLosses]) -> StepLosses:
        """See Recorder."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            losses = work()
        current.wait_stream(self._stream)
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
    """The fastest `update` on the state's device: recorded on a GPU with one worker if `train.cuda_graph` is set.

    The networks of a team cannot be recorded; see `team_of_workers`.
    """
    if config.train.cuda_graph and state.noise.device.type == "cuda" and state.team is ALONE:
        return RecordedUpdate(state, config, recorder_of(state.noise))
    return lambda batch: update(state, batch, config)


class Recording(NamedTuple):
    """A recorded `update_networks`, and the memory that it reads and writes."""

    replay: Callable[[], None]
    batch: Batch
    rates: list[Tensor]
    ramp: Tensor
    names: list[str]
    losses: Tensor


class RecordedUpdate:
    """`update` of one state: the first steps run plainly, the others replay a recording."""

    def __init__(self, state: TrainState, config: Config, recorder: Recorder) -> None:
        self._state, self._config, self._recorder = state, config, recorder
        self._recording: Recording | None = None
        self._plain_steps = 0

    def __call__(self, batch: Batch) -> StepLosses:
        """Do one step and return the losses of `update`.

        Raises:
            TrainingError: the step cannot be recorded.
        """
        if self._plain_steps < PLAIN_STEPS:
            self._plain_steps += 1
            return self._recorder.warm_up(lambda: update(self._state, batch, self._config))
        if self._recording is None:
            self._recording = self._record(batch)
        _copy(batch, self._recording.batch)
        for rate, optimizer in zip(self._recording.rates, self._state.optimizers, strict=True):
            rate.fill_(optimizer.param_groups[0]["lr"])
        self._recording.ramp.fill_(self._state.ramp)
        self._recording.replay()
        update_teacher(self._state, self._config)
        return dict(zip(self._recording.names, self._recording.losses.clone(), strict=True))

    def _record(self, batch: Batch) -> Recording:
        state = self._state
        static = _map_tensors(batch, torch.clone)
        device = batch.images.device
        rates = [torch.zeros((), device=device) for _ in state.optimizers]
        ramp = torch.zeros((), device=device)
        names: list[str] = []

        def work() -> StepLosses:
            losses = update_networks(state, static, self._config)
            names[:] = losses
            return {"all": torch.stack(list(losses.values()))}

        with _on_tensors(state, rates, ramp):
            for optimizer in state.optimizers:
                optimizer.zero_grad(set_to_none=True)
            try:
                replay, losses = self._recorder.record(work)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as problem:
                raise TrainingError(
                    f"a training step could not be recorded as a CUDA graph ({first_line(problem)}); continue with "
                    "--set train.cuda_graph=false"
                ) from problem
        return Recording(replay, static, rates, ramp, names, losses["all"])


@contextmanager
def _on_tensors(state: TrainState, rates: list[Tensor], ramp: Tensor) -> Iterator[None]:
    """Within the body, learning rates and ramp are tensors that a replay reads again, and optimisers are capturable."""
    groups = [optimizer.param_groups[0] for optimizer in state.optimizers]
    plain = [(group["lr"], group["capturable"]) for group in groups]
    plain_ramp = state.ramp
    for group, rate in zip(groups, rates, strict=True):
        group.update(lr=rate, capturable=True)
    state.ramp = ramp
    try:
        yield
    finally:
        for group, (lr, capturable) in zip(groups, plain, strict=True):
            group.update(lr=lr, capturable=capturable)
        state.ramp = plain_ramp


def _map_tensors(part: T, change: Callable[[Tensor], Tensor]) -> T:
    """Apply `change` to the tensors of a batch, which is a tuple of tensors and tuples."""
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
