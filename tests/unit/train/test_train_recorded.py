"""A recorded update matches the plain one: same losses, same weights, whatever changes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import ALL_TERMS
from torch import Tensor, distributed

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.splits import Split
from maag.errors import TrainingError
from maag.train.recorded import PLAIN_STEPS, RecordedUpdate, Update, updates_of
from maag.train.state import TrainState
from maag.train.step import StepLosses, update
from maag.train.team import ALONE, Team, TorchTeam, team_of_workers

CPU = torch.device("cpu")
STEPS = PLAIN_STEPS + 2


class FakeCudaGraph:
    """A CUDA graph on a CPU: each replay repeats the work with the rates and the ramp at its recording.

    As with a real graph, recording leaves the state unchanged and every replay writes its losses to the same tensors.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self.replays = 0

    def warm_up(self, work: Callable[[], StepLosses]) -> StepLosses:
        return work()

    def record(self, work: Callable[[], StepLosses]) -> tuple[Callable[[], None], StepLosses]:
        state = self._state
        groups = [optimizer.param_groups[0] for optimizer in state.optimizers]
        rates, ramp = [group["lr"] for group in groups], state.ramp
        assert all(group["capturable"] for group in groups)
        tensors, noise = tensors_of(state), state.noise.get_state()
        before = [tensor.clone() for tensor in tensors]
        losses = work()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        state.noise.set_state(noise)

        def replay() -> None:
            self.replays += 1
            now = [group["lr"] for group in groups], state.ramp
            state.ramp = ramp
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            for name, loss in work().items():
                losses[name].copy_(loss)
            state.ramp = now[1]
            for group, rate in zip(groups, now[0], strict=True):
                group["lr"] = rate

        return replay, losses


class UnrecordableGraph(FakeCudaGraph):
    def record(self, work: Callable[[], StepLosses]) -> tuple[Callable[[], None], StepLosses]:
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")


def tensors_of(state: TrainState) -> list[Tensor]:
    networks = [network for network in (state.segmentor, state.teacher, state.discriminator, state.areas) if network]
    found = [tensor.detach() for network in networks for tensor in network.state_dict().values()]
    for optimizer in state.optimizers:
        found += [tensor for values in optimizer.state.values() for tensor in values.values()]
    return found


def weights_of(state: TrainState) -> list[Tensor]:
    networks = (state.segmentor, state.teacher, state.discriminator)
    return [weight for network in networks if network for weight in network.parameters()]


def run(
    config: Config,
    prepared: PreparedData,
    split: Split,
    update_of: Callable[[TrainState], Update],
    *,
    with_soft_labels: bool = False,
) -> Any:
    """Losses of some steps whose rates, ramp and noise all differ, and the state after them."""
    supervision = supervise(prepared, split, config)
    if with_soft_labels:
        shape = (len(prepared.images), config.data.num_classes, *config.data.size_px)
        soft_labels = np.random.default_rng(0).integers(0, 64, shape, dtype=np.uint8)
        supervision = replace(supervision, soft_labels=soft_labels)
    state = TrainState(config, CPU)
    apply_update = update_of(state)
    batches = TrainingBatches(supervision, config, CPU)
    losses = []
    for step in range(STEPS):
        state.set_rates(1e-3 / (1 + step), 1e-4 * (1 + step))
        state.ramp = step / STEPS
        state.noise.manual_seed(step)
        losses.append(apply_update(batches.at(step)))
        state.progress.step += 1
    return losses, state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "with_soft_labels"),
    [
        ({}, False),
        (ALL_TERMS, False),
        ({**ALL_TERMS, "teacher.confidence": 0.0}, True),
        ({"loss.adversarial": 0.0}, False),
    ],
    ids=["MAAG", "everything", "student", "alone"],
)
def test_the_recorded_update_matches_the_plain_update(
    tiny_config: Config, prepared: PreparedData, split: Split, changes: dict[str, Any], with_soft_labels: bool
) -> None:
    config = codec.override(tiny_config, changes)
    recorders: list[FakeCudaGraph] = []

    def recorded(state: TrainState) -> Update:
        recorders.append(FakeCudaGraph(state))
        return RecordedUpdate(state, config, recorders[0])

    def plain_of(state: TrainState) -> Update:
        return lambda batch: update(state, batch, config)

    expected, plain = run(config, prepared, split, plain_of, with_soft_labels=with_soft_labels)
    found, state = run(config, prepared, split, recorded, with_soft_labels=with_soft_labels)
    assert recorders[0].replays == STEPS - PLAIN_STEPS
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert [float(loss) for loss in one.values()] == pytest.approx([float(loss) for loss in other.values()])
    for mine, theirs in zip(weights_of(state), weights_of(plain), strict=True):
        # A tensor rate has fp32 precision, and weights with almost no gradient move by rounding alone.
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=5e-4)
    for optimizer, other in zip(state.optimizers, plain.optimizers, strict=True):
        assert optimizer.state_dict()["param_groups"] == other.state_dict()["param_groups"]


def test_a_step_that_cannot_be_recorded_names_the_setting_to_change(
    tiny_config: Config, prepared: PreparedData, split: Split
) -> None:
    with pytest.raises(TrainingError, match=r"not permitted when stream is capturing\); .*train\.cuda_graph=false"):
        run(tiny_config, prepared, split, lambda state: RecordedUpdate(state, tiny_config, UnrecordableGraph(state)))


def test_updates_on_a_cpu_are_not_recorded(tiny_config: Config) -> None:
    assert not isinstance(updates_of(TrainState(tiny_config, CPU), tiny_config), RecordedUpdate)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """As Ray Train starts it for a single worker, too."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def update_on_a_gpu(config: Config, team: Team) -> Update:
    state = TrainState(config, CPU, team)
    state.noise = SimpleNamespace(device=torch.device("cuda"))  # type: ignore[assignment]
    return updates_of(state, config, lambda noise: FakeCudaGraph(state))


def test_updates_on_a_gpu_are_recorded_unless_disabled(tiny_config: Config) -> None:
    assert isinstance(update_on_a_gpu(tiny_config, ALONE), RecordedUpdate)
    plain = codec.override(tiny_config, {"train.cuda_graph": False})
    assert not isinstance(update_on_a_gpu(plain, ALONE), RecordedUpdate)


@pytest.mark.usefixtures("group_of_one")
def test_distributed_networks_are_not_recorded_even_with_one_worker(tiny_config: Config) -> None:
    assert not isinstance(update_on_a_gpu(tiny_config, TorchTeam(CPU)), RecordedUpdate)


@pytest.mark.usefixtures("group_of_one")
def test_the_only_worker_of_a_cluster_trains_alone_and_is_recorded(tiny_config: Config) -> None:
    team = team_of_workers(CPU)
    assert team is ALONE
    state = TrainState(tiny_config, CPU, team)
    assert state.parallel_segmentor is state.segmentor
    assert isinstance(update_on_a_gpu(tiny_config, team), RecordedUpdate)
