"""One update of the three-player game.

Supervision pulls the segmentor to the scribbles; the discriminator learns to tell its predictions from real masks;
the segmentor learns to be taken for one. The signs: real masks go to +1 and predictions to -1 for the discriminator,
predictions go to +1 for the segmentor, and neither player's loss moves the other's weights.
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
from maag.train.teacher import follow, warmed_up
from maag.train.team import Team
from maag.train.unlabelled import unlabelled_terms

StepLosses = dict[str, Tensor]
"""Detached scalars on the device: `supervised`, with a discriminator `adversarial` and `discriminator`, and as they are
weighted what pixels without a label teach, `teacher`, `gates` and `areas`.

Their mean over the workers is the whole batch's loss.
"""


def update(state: TrainState, batch: Batch, config: Config) -> StepLosses:
    """Update the discriminator, if there is one, the segmentor, and its teacher, if it has one, on one batch."""
    losses = play(state, batch, config)
    follow_up(state, config)
    return losses


def follow_up(state: TrainState, config: Config) -> None:
    """After a `play` of the segmentor: its teacher moves towards it."""
    if state.teacher is not None:
        follow(state.teacher, state.segmentor, warmed_up(config.teacher.decay, state.progress.step))


def play(state: TrainState, batch: Batch, config: Config) -> StepLosses:
    """Update the discriminator, if there is one, then the segmentor.

    This worker's means count by its share of the whole batch: one that has more slices than others counts more. Where
    scribbles and masks supervise together, their parts are told apart as `scribbles` and `dense`.
    """
    state.segmentor.train()
    num_supervised = len(batch.images)
    images = batch.images if batch.unlabelled is None else torch.cat([batch.images, batch.unlabelled])
    output = state.joined_segmentor(images.contiguous(memory_format=torch.channels_last))
    supervised, parts = _supervised_terms(output.logits[:num_supervised], batch, config, state.team)
    further = unlabelled_terms(state, output, batch, config)
    objective = sum(further.values(), start=supervised)
    losses = {"supervised": supervised.detach(), **parts, **{name: term.detach() for name, term in further.items()}}
    if state.discriminator is None or batch.masks is None:
        _descend(state.segmentor_optimizer, objective)
        return losses

    fakes = pyramid_of_predictions(output, config.discriminator.scales, conditioned=config.gates.conditioned)
    share = state.team.size * num_supervised / config.optim.batch_size
    on_discriminator = _update_discriminator(state, fakes, batch.masks, share, config)
    adversarial, weighted = (share * term for term in _adversarial_terms(state, fakes, num_supervised, config))
    factor: Tensor | float = 1.0
    if config.loss.dynamic_balance:
        factor = balance(*state.team.mean(torch.stack([supervised, adversarial])))
    _descend(state.segmentor_optimizer, objective + factor * weighted)
    return {**losses, "adversarial": adversarial.detach(), "discriminator": on_discriminator.detach()}


def _supervised_terms(logits: Tensor, batch: Batch, config: Config, team: Team) -> tuple[Tensor, StepLosses]:
    """The weighted sum of the losses on scribbles and on masks, and both by name where both are there."""
    num_scribbled, num_classes = len(batch.labels) - batch.num_dense, logits.shape[1]
    parts = {"scribbles": slice(num_scribbled), "dense": slice(num_scribbled, None)}
    pixel_weights = {
        name: None if batch.label_weights is None else batch.label_weights[part] for name, part in parts.items()
    }
    # Of the whole batch: a class that is rare here may be frequent on another worker.
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
    """One minus the soft Dice over the known pixels of the whole batch, of which a worker may have no slice."""
    classes = torch.arange(logits.shape[1], device=labels.device, dtype=labels.dtype)
    masks = (labels[:, None] == classes[None, :, None, None]).float()
    return overlap_loss(of_whole_batch(class_overlaps(logits, masks, labels != IGNORE), team))


def _update_discriminator(state: TrainState, fakes: MaskPyramid, masks: Tensor, share: float, config: Config) -> Tensor:
    assert state.discriminator is not None
    assert state.joined_discriminator is not None
    assert state.discriminator_optimizer is not None
    state.discriminator.train()
    reals = pyramid_of_masks(masks, config.data.num_classes, config.discriminator.scales)
    # One pass over both, for one step of the spectral norm and one synchronisation of gradients. Detached: the
    # discriminator's loss must not reach the segmentor, for which its sign would be wrong.
    both = {scale: torch.cat([reals[scale], fakes[scale].detach()]) for scale in reals}
    scores = state.joined_discriminator(both, _noise(state, both[0], len(masks), config))
    loss = share * discriminator_loss(scores[: len(masks)], scores[len(masks) :])
    _descend(state.discriminator_optimizer, loss)
    return loss


def _adversarial_terms(
    state: TrainState, fakes: MaskPyramid, num_supervised: int, config: Config
) -> tuple[Tensor, Tensor]:
    """The plain mean over all slices, for balance and display, and the sum weighted by kind of slice."""
    assert state.discriminator is not None
    assert state.judge is not None
    with _frozen(state.discriminator):
        scores = state.judge(fakes, _noise(state, fakes[0], num_supervised, config))
    weighted = config.loss.adversarial * adversarial_loss(scores[:num_supervised])
    if len(scores) > num_supervised:
        weighted = weighted + config.loss.adversarial_unlabelled * adversarial_loss(scores[num_supervised:])
    return adversarial_loss(scores), weighted


@contextmanager
def _frozen(discriminator: Discriminator) -> Iterator[None]:
    """The discriminator as a fixed judge: gradients pass through it to the segmentor and leave none in it."""
    discriminator.requires_grad_(False)
    try:
        yield
    finally:
        discriminator.requires_grad_(True)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _noise(state: TrainState, maps: Tensor, num_own: int, config: Config) -> DiscriminatorNoise:
    """Noise for full-resolution `maps`, `num_own` slices of each kind, as this worker's shard of the whole batch's."""
    shape = torch.Size((config.optim.batch_size, *maps.shape[1:]))
    kinds = [draw_noise(shape, state.noise) for _ in range(len(maps) // num_own)]
    return DiscriminatorNoise(
        *(torch.cat([state.team.shard.of(part) for part in parts]) for parts in zip(*kinds, strict=True))
    )
