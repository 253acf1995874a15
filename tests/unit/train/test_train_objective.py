"""What a step minimises, computed by hand: gradients come from the weighted terms and from nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.areas import Areas
from maag.data.slices.batches import Batch
from maag.labels import IGNORE
from maag.losses import adversarial_loss, class_overlaps, discriminator_loss, overlap_loss, partial_cross_entropy
from maag.models.discriminator import (
    Discriminator,
    DiscriminatorNoise,
    MaskPyramid,
    pyramid_of_masks,
    pyramid_of_predictions,
)
from maag.models.segmentor import SegmentorOutput
from maag.train.state import TrainState
from maag.train.step import update, update_networks
from maag.train.unlabelled import unlabelled_terms

CPU = torch.device("cpu")
NO_ADVERSARIAL = {"loss.adversarial": 0.0}
NO_NOISE = {"discriminator.instance_noise": 0.0, "discriminator.label_noise": 0.0}


@pytest.fixture
def batch() -> Batch:
    """Four partly labelled slices, four unlabelled ones, and unpaired masks."""
    generator = torch.Generator().manual_seed(0)
    images, unlabelled = torch.randn(2, 4, 1, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (4, 32, 32), generator=generator, dtype=torch.uint8)
    labels[:, :5] = IGNORE
    masks = torch.zeros(4, 32, 32, dtype=torch.uint8)
    masks[:, 8:24, 8:24], masks[:, 12:20, 12:20] = 2, 3
    return Batch(images, labels, unlabelled, masks)


def segment_pixelwise(images: Tensor) -> SegmentorOutput:
    """A segmentor without weights, so that gradients are those of its images."""
    logits = torch.cat([images, images.sin(), images.square(), -images], dim=1)
    return SegmentorOutput(logits, {1: avg_pool2d(2 * logits, 2).softmax(dim=1)})


def state_of(config: Config) -> TrainState:
    state = TrainState(config, CPU)
    state.set_rates(0.0, 0.0)
    state.parallel_segmentor = segment_pixelwise  # type: ignore[assignment]
    return state


def with_image_leaves(batch: Batch) -> tuple[Batch, list[Tensor]]:
    """The same batch, and its images as leaves that collect gradients."""
    assert batch.unlabelled is not None
    leaves = [images.detach().clone().requires_grad_() for images in (batch.images, batch.unlabelled)]
    return batch._replace(images=leaves[0], unlabelled=leaves[1]), leaves


@pytest.mark.parametrize(("supervision", "num_dense"), [("mixed", 2), ("dense", 4)])
def test_supervised_gradients_follow_class_pixel_and_label_type_weights(
    tiny_config: Config, batch: Batch, supervision: str, num_dense: int
) -> None:
    weights = {"loss.supervised": 5.0, "loss.dense": 3.0, "loss.dense_overlap": 0.5, "loss.class_weights": 0.5}
    config = codec.override(tiny_config, {**NO_ADVERSARIAL, **weights, "data.supervision": supervision})
    label_weights = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(1))
    given, leaves = with_image_leaves(batch._replace(num_dense=num_dense, label_weights=label_weights))
    found = update_networks(state_of(config), given._replace(unlabelled=None), config)

    images = batch.images.clone().requires_grad_()
    logits = segment_pixelwise(images).logits
    scribbled, dense = slice(4 - num_dense), slice(4 - num_dense, 4)
    on_scribbles, on_masks = (
        partial_cross_entropy(logits[part], batch.labels[part], class_weights=0.5, pixel_weights=label_weights[part])
        for part in (scribbled, dense)
    )
    one_hot = torch.stack([batch.labels[dense] == value for value in range(4)], dim=1).float()
    overlap = overlap_loss(class_overlaps(logits[dense], one_hot, batch.labels[dense] != IGNORE))
    expected = 5 * on_scribbles + 3 * (on_masks + 0.5 * overlap)
    torch.testing.assert_close(found["supervised"], expected.detach())
    torch.testing.assert_close(leaves[0].grad, torch.autograd.grad(expected, images)[0])


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("conditioned", [True, False])
def test_adversarial_loss_is_weighted_by_slice_type_and_balanced_against_supervision(
    tiny_config: Config, batch: Batch, balanced: bool, conditioned: bool
) -> None:
    weights = {"loss.adversarial": 0.3, "loss.adversarial_unlabelled": 0.7, "loss.supervised": 2.0}
    options = {"loss.dynamic_balance": balanced, "gates.conditioned": conditioned}
    config = codec.override(tiny_config, {**NO_NOISE, **weights, **options})
    state = state_of(config)
    assert state.discriminator is not None
    discriminator = copy.deepcopy(state.discriminator)
    given, leaves = with_image_leaves(batch)
    found = update_networks(state, given, config)

    reference, reference_leaves = with_image_leaves(batch)
    assert reference.unlabelled is not None
    assert batch.masks is not None
    output = segment_pixelwise(torch.cat([reference.images, reference.unlabelled]))
    reals = pyramid_of_masks(batch.masks, 4, config.discriminator.scales)
    fakes = pyramid_of_predictions(output, config.discriminator.scales, conditioned=conditioned)
    with torch.no_grad():  # Each forward pass advances the spectral norms.
        on_all = discriminator({scale: torch.cat([reals[scale], fakes[scale]]) for scale in reals})
    on_fakes = discriminator(fakes)
    supervised = 2 * partial_cross_entropy(output.logits[:4], batch.labels, class_weights=config.loss.class_weights)
    adversarial = adversarial_loss(on_fakes)
    factor = (supervised / adversarial).detach() if balanced else 1.0
    weighted = 0.3 * adversarial_loss(on_fakes[:4]) + 0.7 * adversarial_loss(on_fakes[4:])
    expected = torch.autograd.grad(supervised + factor * weighted, reference_leaves)
    for images, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(images.grad, gradient)
    torch.testing.assert_close(found["supervised"], supervised.detach())
    torch.testing.assert_close(found["adversarial"], adversarial.detach())
    torch.testing.assert_close(found["discriminator"], discriminator_loss(on_all[:4], on_all[4:]))


def test_unlabelled_terms_add_to_the_supervised_gradient(tiny_config: Config, batch: Batch) -> None:
    weights = {"loss.teacher": 2.0, "loss.areas": 3.0, "teacher.gates": 0.5, "teacher.decay": 0.9}
    config = codec.override(tiny_config, {**NO_ADVERSARIAL, **weights, "teacher.confidence": 0.0})
    soft_labels = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    areas = Areas(torch.tensor([0.97, 0.01, 0.01, 0.01]), torch.zeros(4), torch.tensor(9.0))
    student = batch._replace(soft_labels=soft_labels, areas=areas)
    given, leaves = with_image_leaves(student)
    found = update_networks(state_of(config), given, config)

    reference, reference_leaves = with_image_leaves(student)
    assert reference.unlabelled is not None
    output = segment_pixelwise(torch.cat([reference.images, reference.unlabelled]))
    terms = unlabelled_terms(state_of(config), output, reference, config)
    assert set(terms) == {"teacher", "gates", "areas"}
    supervised = partial_cross_entropy(output.logits[:4], batch.labels, class_weights=config.loss.class_weights)
    expected = torch.autograd.grad(config.loss.supervised * supervised + sum(terms.values()), reference_leaves)
    for images, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(images.grad, gradient)
    for name, term in terms.items():
        torch.testing.assert_close(found[name], term.detach())


def test_each_step_clears_the_previous_gradients(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, NO_ADVERSARIAL)
    state = TrainState(config, CPU)
    state.set_rates(0.0, 0.0)
    gradients = []
    for _ in range(2):
        update(state, batch, config)
        gradients.append(state.segmentor.classify.weight.grad.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[1], gradients[0])


class NoiseRecorder:
    """Records the noise of each forward pass of the discriminator."""

    def __init__(self, discriminator: Discriminator) -> None:
        self._discriminator = discriminator
        self.noise: list[DiscriminatorNoise] = []

    def __call__(self, pyramid: MaskPyramid, noise: DiscriminatorNoise | None = None) -> Any:
        assert noise is not None
        self.noise.append(noise)
        return self._discriminator(pyramid, noise)


def test_each_mask_and_prediction_gets_new_noise_in_each_pass(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, {"loss.adversarial": 0.3, "loss.adversarial_unlabelled": 0.7})
    state = state_of(config)
    assert state.discriminator is not None
    recorder = NoiseRecorder(state.discriminator)
    state.accelerated_discriminator = state.parallel_discriminator = recorder  # type: ignore[assignment]
    update_networks(state, with_image_leaves(batch)[0], config)
    on_all, on_fakes = recorder.noise
    assert (len(on_all.instance), len(on_fakes.instance)) == (12, 8)
    noise = torch.cat([on_all.instance, on_fakes.instance]).flatten(start_dim=1)
    assert len(noise.unique(dim=0)) == 20
    assert len(torch.cat([on_all.flip, on_fakes.flip]).unique()) == 20
