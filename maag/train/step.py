"""One training step: an update of the discriminator, then of the segmentor, then of its teacher.

The segmentor minimises the supervised loss on the labelled pixels plus the adversarial loss. The discriminator learns
to score real masks +1 and predictions -1, the segmentor to have its predictions scored +1; neither network's loss
updates the other's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from maag.config.schema import Config
from maag.data.slices.batches import Batch
from maag.labels import IGNORE
from maag.losses import (
    adversarial_loss,
    balance,
    class_counts,
    class_overlaps,
    discriminator_loss,
    overlap_loss,
    partial_cross_entropy,
)
from maag.models.discriminator import (
    Discriminator,
    DiscriminatorNoise,
    MaskPyramid,
    draw_noise,
    pyramid_of_masks,
    pyramid_of_predictions,
)
from maag.train.areas import of_whole_batch
from maag.train.state import TrainState
from maag.train.teacher import update_ema, warmed_up_decay
from maag.train.team import Team
from maag.train.unlabelled import unlabelled_terms

StepLosses = dict[str, Tensor]
"""Detached scalars on the device: `supervised`; with a discriminator `adversarial` and `discriminator`; and `teacher`,
`gates` and `areas`, the weighted terms on unlabelled pixels.

Their mean over the workers is the loss of the whole batch.
"""


def update(state: TrainState, batch: Batch, config: Config) -> StepLosses:
    """Update the discriminator (if any), the segmentor, and its teacher (if any) on one batch."""
    losses = update_networks(state, batch, config)
    update_teacher(state, config)
    return losses


def update_teacher(state: TrainState, config: Config) -> None:
    """Move the teacher, if there is one, towards the segmentor; call it after `update_networks`."""
    if state.teacher is not None:
        update_ema(state.teacher, state.segmentor, warmed_up_decay(config.teacher.decay, state.progress.step))


def update_networks(state: TrainState, batch: Batch, config: Config) -> StepLosses:
    """Update the discriminator (if any), then the segmentor.

    The adversarial losses of this worker are scaled by its share of the whole batch, as workers may have different
    numbers of slices. Where scribbles and masks supervise together, their losses are also reported as `scribbles` and
    `dense`.
    """
    state.segmentor.train()
    num_supervised = len(batch.images)
    images = batch.images if batch.unlabelled is None else torch.cat([batch.images, batch.unlabelled])
    output = state.parallel_segmentor(images.contiguous(memory_format=torch.channels_last))
    supervised, parts = _supervised_terms(output.logits[:num_supervised], batch, config, state.team)
    unlabelled = unlabelled_terms(state, output, batch, config)
    objective = sum(unlabelled.values(), start=supervised)
    losses = {"supervised": supervised.detach(), **parts, **{name: term.detach() for name, term in unlabelled.items()}}
    if state.discriminator is None or batch.masks is None:
        _gradient_step(state.segmentor_optimizer, objective)
        return losses

    fakes = pyramid_of_predictions(output, config.discriminator.scales, conditioned=config.gates.conditioned)
    share = state.team.size * num_supervised / config.optim.batch_size
    discriminator = _update_discriminator(state, fakes, batch.masks, share, config)
    adversarial, weighted = (share * term for term in _adversarial_terms(state, fakes, num_supervised, config))
    factor: Tensor | float = 1.0
    if config.loss.dynamic_balance:
        factor = balance(*state.team.mean(torch.stack([supervised, adversarial])))
    _gradient_step(state.segmentor_optimizer, objective + factor * weighted)
    return {**losses, "adversarial": adversarial.detach(), "discriminator": discriminator.detach()}


def _supervised_terms(logits: Tensor, batch: Batch, config: Config, team: Team) -> tuple[Tensor, StepLosses]:
    """The weighted sum of the losses on scribbles and on masks, and where both supervise, each by name."""
    num_scribbled, num_classes = len(batch.labels) - batch.num_dense, logits.shape[1]
    parts = {"scribbles": slice(num_scribbled), "dense": slice(num_scribbled, None)}
    pixel_weights = {
        name: None if batch.label_weights is None else batch.label_weights[part] for name, part in parts.items()
    }
    # Class weights come from the whole batch: a class that is rare here may be frequent on another worker.
    counts = team.sum(
        torch.stack(
            [class_counts(batch.labels[part], num_classes, pixel_weights[name]) for name, part in parts.items()]
        )
    )
    losses = {
        name: team.size
        * partial_cross_entropy(
            logits[part],
            batch.labels[part],
            class_weights=config.loss.class_weights,
            pixel_weights=pixel_weights[name],
            counts=counts_of_part,
        )
        for (name, part), counts_of_part in zip(parts.items(), counts, strict=True)
    }
    if config.loss.dense_overlap and config.data.supervision in ("mixed", "dense"):
        overlap = _overlap_with_masks(logits[parts["dense"]], batch.labels[parts["dense"]], team)
        losses["dense"] = losses["dense"] + config.loss.dense_overlap * overlap
    weighted = config.loss.supervised * losses["scribbles"] + config.loss.dense * losses["dense"]
    both = config.data.supervision == "mixed"
    return weighted, {name: loss.detach() for name, loss in losses.items()} if both else {}


def _overlap_with_masks(logits: Tensor, labels: Tensor, team: Team) -> Tensor:
    """One minus the soft Dice over the labelled pixels of the whole batch; a worker may have no slice of it."""
    classes = torch.arange(logits.shape[1], device=labels.device, dtype=labels.dtype)
    masks = (labels[:, None] == classes[None, :, None, None]).float()
    return overlap_loss(of_whole_batch(class_overlaps(logits, masks, labels != IGNORE), team))


def _update_discriminator(state: TrainState, fakes: MaskPyramid, masks: Tensor, share: float, config: Config) -> Tensor:
    assert state.discriminator is not None
    assert state.parallel_discriminator is not None
    assert state.discriminator_optimizer is not None
    state.discriminator.train()
    reals = pyramid_of_masks(masks, config.data.num_classes, config.discriminator.scales)
    # One pass over both, so that the spectral norm takes one power iteration and gradients are synchronised once.
    # Predictions are detached: the discriminator's loss has the wrong sign for the segmentor.
    both = {scale: torch.cat([reals[scale], fakes[scale].detach()]) for scale in reals}
    scores = state.parallel_discriminator(both, _noise(state, both[0], len(masks), config))
    loss = share * discriminator_loss(scores[: len(masks)], scores[len(masks) :])
    _gradient_step(state.discriminator_optimizer, loss)
    return loss


def _adversarial_terms(
    state: TrainState, fakes: MaskPyramid, num_supervised: int, config: Config
) -> tuple[Tensor, Tensor]:
    """The unweighted mean over all slices, for balance and display, and the sum weighted by kind of slice."""
    assert state.discriminator is not None
    assert state.accelerated_discriminator is not None
    with _frozen(state.discriminator):
        scores = state.accelerated_discriminator(fakes, _noise(state, fakes[0], num_supervised, config))
    weighted = config.loss.adversarial * adversarial_loss(scores[:num_supervised])
    if len(scores) > num_supervised:
        weighted = weighted + config.loss.adversarial_unlabelled * adversarial_loss(scores[num_supervised:])
    return adversarial_loss(scores), weighted


@contextmanager
def _frozen(discriminator: Discriminator) -> Iterator[None]:
    """Let gradients pass through the discriminator to the segmentor without accumulating in its own weights."""
    discriminator.requires_grad_(False)
    try:
        yield
    finally:
        discriminator.requires_grad_(True)


def _gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _noise(state: TrainState, maps: Tensor, num_own: int, config: Config) -> DiscriminatorNoise:
    """This worker's shard of the whole batch's noise, for full-resolution `maps` of `num_own` slices of each kind."""
    shape = torch.Size((config.optim.batch_size, *maps.shape[1:]))
    kinds = [draw_noise(shape, state.noise) for _ in range(len(maps) // num_own)]
    return DiscriminatorNoise(
        *(torch.cat([state.team.shard.of(part) for part in parts]) for parts in zip(*kinds, strict=True))
    )
