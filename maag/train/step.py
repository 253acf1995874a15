"""One update of the three-player game.

Supervision pulls the segmentor to the scribbles; the discriminator learns to tell its predictions from real masks;
the segmentor learns to be taken for one. The signs: real masks go to +1 and predictions to -1 for the discriminator,
predictions go to +1 for the segmentor, and neither player's loss moves the other's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maag.config.schema import Config
from maag.data.batches import Batch
from maag.losses import adversarial_loss, balance, discriminator_loss, partial_cross_entropy
from maag.models.discriminator import Discriminator, pyramid_of_masks, pyramid_of_predictions
from maag.models.segmentor import SegmentorOutput
from maag.train.state import TrainState

StepLosses = dict[str, Tensor]
"""Detached scalars on the device: `supervised`, and with a discriminator `adversarial` and `discriminator`."""


def update(state: TrainState, batch: Batch, config: Config) -> StepLosses:
    """Update the discriminator, if there is one, then the segmentor, on one batch.

    Where scribbles and masks supervise together, their parts are told apart as `scribbles` and `dense`.
    """
    state.segmentor.train()
    num_supervised = len(batch.images)
    images = batch.images if batch.unlabelled is None else torch.cat([batch.images, batch.unlabelled])
    output = state.segmentor(images.contiguous(memory_format=torch.channels_last))
    supervised, parts = _supervised_terms(output.logits[:num_supervised], batch, config)
    if state.discriminator is None or batch.masks is None:
        _descend(state.segmentor_optimizer, supervised)
        return {"supervised": supervised.detach(), **parts}

    on_discriminator = _update_discriminator(state, output, batch.masks, config)
    adversarial, weighted = _adversarial_terms(state, output, num_supervised, config)
    factor = balance(supervised, adversarial) if config.loss.dynamic_balance else 1.0
    _descend(state.segmentor_optimizer, supervised + factor * weighted)
    return {
        "supervised": supervised.detach(),
        **parts,
        "adversarial": adversarial.detach(),
        "discriminator": on_discriminator.detach(),
    }


def _supervised_terms(logits: Tensor, batch: Batch, config: Config) -> tuple[Tensor, StepLosses]:
    """The weighted sum of the losses on scribbles and on masks, and both by name where both are there."""
    num_scribbled = len(batch.labels) - batch.num_dense
    losses = {
        name: partial_cross_entropy(
            logits[part],
            batch.labels[part],
            class_weights=config.loss.class_weights,
            pixel_weights=None if batch.label_weights is None else batch.label_weights[part],
        )
        for name, part, there in (
            ("scribbles", slice(num_scribbled), num_scribbled > 0),
            ("dense", slice(num_scribbled, None), batch.num_dense > 0),
        )
        if there
    }
    factors = {"scribbles": config.loss.supervised, "dense": config.loss.dense}
    weighted = torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
    return weighted, {name: loss.detach() for name, loss in losses.items()} if len(losses) > 1 else {}


def _update_discriminator(state: TrainState, output: SegmentorOutput, masks: Tensor, config: Config) -> Tensor:
    discriminator, optimizer = state.discriminator, state.discriminator_optimizer
    assert discriminator is not None
    assert optimizer is not None
    discriminator.train()
    scales = config.discriminator.scales
    real = pyramid_of_masks(masks, config.data.num_classes, scales)
    fake = pyramid_of_predictions(output, scales, conditioned=config.gates.conditioned)
    # Detached: the discriminator's loss must not reach the segmentor, for which its sign would be wrong.
    loss = discriminator_loss(
        discriminator(real, state.noise),
        discriminator({scale: maps.detach() for scale, maps in fake.items()}, state.noise),
    )
    _descend(optimizer, loss)
    return loss


def _adversarial_terms(
    state: TrainState, output: SegmentorOutput, num_supervised: int, config: Config
) -> tuple[Tensor, Tensor]:
    """The plain mean over all slices, for balance and display, and the sum weighted by kind of slice."""
    assert state.discriminator is not None
    pyramid = pyramid_of_predictions(output, config.discriminator.scales, conditioned=config.gates.conditioned)
    with _frozen(state.discriminator) as judge:
        scores = judge(pyramid, state.noise)
    weighted = config.loss.adversarial * adversarial_loss(scores[:num_supervised])
    if len(scores) > num_supervised:
        weighted = weighted + config.loss.adversarial_unlabelled * adversarial_loss(scores[num_supervised:])
    return adversarial_loss(scores), weighted


@contextmanager
def _frozen(discriminator: Discriminator) -> Iterator[nn.Module]:
    """The discriminator as a fixed judge: gradients pass through it to the segmentor and leave none in it."""
    discriminator.requires_grad_(False)
    try:
        yield discriminator
    finally:
        discriminator.requires_grad_(True)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
