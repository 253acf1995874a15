"""Training steps on a CUDA device: equal to the CPU's, in any precision, compiled or not, and without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from short_runs import ALL_AUGMENTATIONS, ALL_TERMS

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.splits import Split
from maag.models.discriminator import pyramid_of_masks
from maag.train.acceleration import require_fast, runs_in_bf16
from maag.train.recorded import PLAIN_STEPS, CudaRecorder, RecordedUpdate, Update
from maag.train.state import TrainState
from maag.train.step import update

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and PyTorch sees none"),
    # torch's compiler imports deprecated parts of torch.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
    # Said of the mode in which waits are refused, and of fp32 by torch's compiler: both are meant here.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

CUDA = torch.device("cuda")
SEVERAL = {**ALL_TERMS, **ALL_AUGMENTATIONS}
FASTER = [{"train.precision": "auto"}, {"train.compile": True}, {"train.precision": "auto", "train.compile": True}]
"""What a GPU may do beside eager fp32; `auto` is bf16 on those that have it."""


def test_cuda_update_agrees_with_the_cpu(tiny_config: Config, prepared: PreparedData, split: Split) -> None:
    losses = {}
    batch = TrainingBatches(supervise(prepared, split, tiny_config), tiny_config, torch.device("cpu")).at(0)
    for device in (torch.device("cpu"), CUDA):
        state = TrainState(tiny_config, device)
        moved = batch._replace(
            **{name: part.to(device) for name, part in batch._asdict().items() if isinstance(part, torch.Tensor)}
        )
        state.set_rates(1e-4, 1e-4)
        losses[device.type] = float(update(state, moved, tiny_config)["supervised"])
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)


@pytest.mark.parametrize("faster", FASTER, ids=["bf16", "compiled", "compiled bf16"])
def test_faster_steps_stay_close_to_eager_fp32(
    tiny_config: Config, prepared: PreparedData, split: Split, faster: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, SEVERAL)
    expected = losses_of(config, prepared, split)
    found = losses_of(codec.override(config, faster), prepared, split)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.03)


@pytest.mark.parametrize("faster", [{}, *FASTER], ids=["eager fp32", "bf16", "compiled", "compiled bf16"])
def test_no_step_waits_for_the_device(
    tiny_config: Config, prepared: PreparedData, split: Split, faster: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, {**SEVERAL, **faster})
    state = TrainState(config, CUDA)
    state.set_rates(1e-4, 1e-4)
    batches = TrainingBatches(supervise(prepared, split, config), config, CUDA)
    for step in range(5):
        # The first steps make optimiser states and kernels.
        with synchronisation_refused() if step > 2 else nullcontext():
            state.noise.manual_seed(step)
            update(state, batches.at(step), config)


@pytest.mark.parametrize("faster", [{}, *FASTER], ids=["eager fp32", "bf16", "compiled", "compiled bf16"])
def test_recorded_step_matches_the_plain_step(
    tiny_config: Config, prepared: PreparedData, split: Split, faster: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, {**SEVERAL, **faster})
    batches = TrainingBatches(supervise(prepared, split, config), config, CUDA)

    def run(update_of: Callable[[TrainState], Update]) -> tuple[list[dict[str, float]], TrainState]:
        state = TrainState(config, CUDA)
        once = update_of(state)
        losses = []
        for step in range(PLAIN_STEPS + 6):
            state.set_rates(1e-4 * (1 + step), 1e-4 / (1 + step))
            state.ramp = step / 10
            state.noise.manual_seed(step)
            losses.append({name: float(loss) for name, loss in once(batches.at(step)).items()})
            state.progress.step += 1
        return losses, state

    expected, plain = run(lambda state: lambda batch: update(state, batch, config))
    found, recorded = run(lambda state: RecordedUpdate(state, config, CudaRecorder(state.noise)))
    # Adam amplifies rounding, such as another order of sums or digit of bf16: so all weights are compared together.
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.1)
    moved = [path_of(state, TrainState(config, CUDA)) for state in (recorded, plain)]
    assert float(torch.cosine_similarity(moved[0], moved[1], dim=0)) > 0.7
    assert float(moved[0].norm()) == pytest.approx(float(moved[1].norm()), rel=0.05)


def path_of(state: TrainState, start: TrainState) -> torch.Tensor:
    """All that training changed in the segmentor's weights, as one vector."""
    pairs = zip(state.segmentor.parameters(), start.segmentor.parameters(), strict=True)
    return torch.cat([(now - before).detach().flatten() for now, before in pairs])


def test_no_recorded_step_waits_for_the_device(tiny_config: Config, prepared: PreparedData, split: Split) -> None:
    config = codec.override(tiny_config, SEVERAL)
    state = TrainState(config, CUDA)
    state.set_rates(1e-4, 1e-4)
    batches = TrainingBatches(supervise(prepared, split, config), config, CUDA)
    once = RecordedUpdate(state, config, CudaRecorder(state.noise))
    for step in range(PLAIN_STEPS + 4):
        with synchronisation_refused() if step > PLAIN_STEPS else nullcontext():
            state.noise.manual_seed(step)
            once(batches.at(step))


def test_auto_precision_uses_bf16_on_supporting_gpus(tiny_config: Config) -> None:
    config = codec.override(tiny_config, {"train.precision": "auto"})
    assert runs_in_bf16(config.train, CUDA) == (torch.cuda.get_device_capability() >= (8, 0))
    require_fast(config.train, CUDA)


def test_power_iteration_keeps_fp32_precision(tiny_config: Config) -> None:
    masks = torch.zeros(2, 32, 32, dtype=torch.uint8, device=CUDA)
    pyramid = pyramid_of_masks(masks, 4, tiny_config.discriminator.scales)
    plain = TrainState(tiny_config, CUDA).discriminator
    faster = TrainState(codec.override(tiny_config, {"train.precision": "auto"}), CUDA)
    assert plain is not None
    assert faster.discriminator is not None
    assert faster.accelerated_discriminator is not None
    plain(pyramid)
    faster.accelerated_discriminator(pyramid)
    for (name, one), two in zip(plain.named_buffers(), faster.discriminator.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6, msg=name)


def losses_of(config: Config, prepared: PreparedData, split: Split) -> list[dict[str, float]]:
    state = TrainState(config, CUDA)
    state.set_rates(1e-4, 1e-4)
    batches = TrainingBatches(supervise(prepared, split, config), config, CUDA)
    losses = []
    for step in range(4):
        state.noise.manual_seed(step)
        losses.append({name: float(loss) for name, loss in update(state, batches.at(step), config).items()})
        state.progress.step += 1
    return losses


@contextmanager
def synchronisation_refused() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
