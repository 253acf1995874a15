"""Workers that share a batch compute the losses and the gradients of the whole batch, whoever has which slices."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.areas import Areas
from maag.data.slices.batches import Batch
from maag.data.slices.shard import Shard
from maag.labels import IGNORE
from maag.models.segmentor import SegmentorOutput
from maag.train.state import TrainState
from maag.train.step import update_networks
from maag.train.team import ALONE, Team

CPU = torch.device("cpu")
BATCH_SIZE = 5
SHARED = {
    "optim.batch_size": BATCH_SIZE,
    "data.supervision": "mixed",
    "discriminator.instance_noise": 0.2,
    "discriminator.label_noise": 0.3,
    "gates.conditioned": True,
    "loss.adversarial": 0.5,
    "loss.adversarial_unlabelled": 0.2,
    "loss.areas": 1.0,
    "loss.class_weights": 1.0,
    "loss.dense": 2.0,
    "loss.dense_overlap": 1.0,
    "loss.dynamic_balance": True,
    "loss.teacher": 1.0,
    "teacher.confidence": 0.3,
    "teacher.decay": 0.9,
    "teacher.gates": 0.5,
}


class Threads(Team):
    """A worker of a team whose processes are threads."""

    def __init__(self, rank: int, exchanged: list[Tensor], barrier: Barrier) -> None:
        self.shard = Shard(rank, len(exchanged))
        self._exchanged, self._barrier = exchanged, barrier

    def sum(self, values: Tensor) -> Tensor:
        self._exchanged[self.shard.rank] = values.detach()
        self._barrier.wait(timeout=60)
        total = torch.stack(self._exchanged).sum(dim=0)
        self._barrier.wait(timeout=60)
        return total

    def mean(self, values: Tensor) -> Tensor:
        return self.sum(values) / self.size


class StepResult(NamedTuple):
    losses: dict[str, Tensor]
    on_slices: tuple[Tensor, Tensor]
    """Gradients of the supervised images and of the unlabelled ones."""
    on_discriminator: list[Tensor]


@pytest.fixture
def batch() -> Batch:
    """Two slices with scribbles and three with masks; the sizes of classes differ between slices."""
    generator = torch.Generator().manual_seed(0)
    images, unlabelled = (torch.randn(BATCH_SIZE, 1, 32, 32, generator=generator) for _ in range(2))
    scores = torch.rand(BATCH_SIZE, 4, 32, 32, generator=generator)
    scores[:, 1:] *= torch.rand(BATCH_SIZE, 3, 1, 1, generator=generator)
    labels = scores.argmax(dim=1).to(torch.uint8)
    labels[:2][torch.rand(2, 32, 32, generator=generator) < 0.9] = IGNORE
    masks = torch.randint(0, 4, (BATCH_SIZE, 32, 32), generator=generator, dtype=torch.uint8)
    return Batch(
        images,
        labels,
        unlabelled,
        masks,
        num_dense=3,
        label_weights=torch.rand(BATCH_SIZE, 32, 32, generator=generator),
        soft_labels=(3 * torch.randn(2 * BATCH_SIZE, 4, 32, 32, generator=generator)).softmax(dim=1),
        areas=Areas(torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.full((4,), 0.01), torch.tensor(9.0)),
    )


def part_of(batch: Batch, shard: Shard) -> Batch:
    assert batch.unlabelled is not None
    assert batch.masks is not None
    assert batch.soft_labels is not None
    assert batch.label_weights is not None
    return batch._replace(
        images=shard.of(batch.images),
        labels=shard.of(batch.labels),
        unlabelled=shard.of(batch.unlabelled),
        masks=shard.of(batch.masks),
        num_dense=len(shard.of(range(BATCH_SIZE))) - len(shard.of(range(BATCH_SIZE - batch.num_dense))),
        label_weights=shard.of(batch.label_weights),
        soft_labels=torch.cat([shard.of(half) for half in batch.soft_labels.split(BATCH_SIZE)]),
    )


def segment_pixelwise(images: Tensor) -> SegmentorOutput:
    """A segmentor without batch statistics, so that each slice is segmented on its own."""
    logits = torch.cat([images, images.sin(), images.square(), -images], dim=1)
    return SegmentorOutput(logits, {level: avg_pool2d(2 * logits, 2**level).softmax(dim=1) for level in (1, 2)})


def run_step(config: Config, batch: Batch, state: TrainState) -> StepResult:
    state.set_rates(0.0, 0.0)
    state.noise.manual_seed(0)
    state.parallel_segmentor = segment_pixelwise  # type: ignore[assignment]
    assert batch.unlabelled is not None
    assert state.discriminator is not None
    leaves = [images.clone().requires_grad_() for images in (batch.images, batch.unlabelled)]
    losses = update_networks(state, batch._replace(images=leaves[0], unlabelled=leaves[1]), config)
    on_slices = tuple(leaf.grad for leaf in leaves if leaf.grad is not None)
    on_discriminator = [weight.grad for weight in state.discriminator.parameters() if weight.grad is not None]
    return StepResult(losses, on_slices, on_discriminator)  # type: ignore[arg-type]


def run_workers(config: Config, batch: Batch, size: int) -> Iterator[StepResult]:
    exchanged, barrier = [torch.empty(0)] * size, Barrier(size)
    states = [TrainState(config, CPU, Threads(rank, exchanged, barrier)) for rank in range(size)]
    parts = [part_of(batch, Shard(rank, size)) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        yield from pool.map(run_step, [config] * size, parts, states)


@pytest.mark.parametrize(
    ("size", "changes"), [(2, {}), (3, {"loss.class_weights": 0.0, "loss.dynamic_balance": False})]
)
def test_workers_match_the_losses_and_gradients_of_the_whole_batch(
    tiny_config: Config, batch: Batch, size: int, changes: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, {**SHARED, **changes})
    whole = run_step(config, batch, TrainState(config, CPU, ALONE))
    workers = list(run_workers(config, batch, size))
    assert set(whole.losses) == {
        "supervised", "scribbles", "dense", "teacher", "gates", "areas", "adversarial", "discriminator",
    }  # fmt: skip
    for name, expected in whole.losses.items():
        mean = torch.stack([worker.losses[name] for worker in workers]).mean()
        torch.testing.assert_close(mean, expected, msg=lambda text, name=name: f"{name}: {text}")
    for rank, worker in enumerate(workers):
        for mine, expected in zip(worker.on_slices, whole.on_slices, strict=True):
            # Averaging divides a worker's gradient by the number of workers.
            torch.testing.assert_close(mine / size, Shard(rank, size).of(expected), rtol=1e-4, atol=1e-7)
    for number, expected in enumerate(whole.on_discriminator):
        mean = torch.stack([worker.on_discriminator[number] for worker in workers]).mean(dim=0)
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6)
