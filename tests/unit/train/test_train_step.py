"""The signs of the adversarial losses, and which loss updates which network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.areas import Areas
from maag.data.slices.batches import Batch
from maag.labels import IGNORE
from maag.models.discriminator import pyramid_of_masks, pyramid_of_predictions
from maag.models.layers import ConvNorm
from maag.models.segmentor import SegmentorOutput
from maag.train.state import TrainState
from maag.train.step import update, update_networks

CPU = torch.device("cpu")
ADVERSARIAL_WITHOUT_NOISE = {
    "discriminator.instance_noise": 0.0,
    "discriminator.label_noise": 0.0,
    "loss.dynamic_balance": False,
    "loss.adversarial": 1.0,
}


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(4, 32, 32, dtype=torch.uint8)
    masks[:, 8:24, 8:24], masks[:, 12:20, 12:20] = 2, 3
    unlabelled = torch.full((4, 32, 32), IGNORE, dtype=torch.uint8)
    return Batch(torch.randn(4, 1, 32, 32, generator=generator), unlabelled, None, masks)


def scores(state: TrainState, config: Config, batch: Batch) -> tuple[float, float]:
    """The discriminator's mean scores of real masks and of predictions."""
    assert state.discriminator is not None
    assert batch.masks is not None
    discriminator = copy.deepcopy(state.discriminator).eval()
    segmentor = copy.deepcopy(state.segmentor).train()
    with torch.no_grad():
        real = discriminator(pyramid_of_masks(batch.masks, 4, config.discriminator.scales))
        fake = discriminator(
            pyramid_of_predictions(segmentor(batch.images), config.discriminator.scales, conditioned=True)
        )
    return float(real.mean()), float(fake.mean())


def weights_of(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def all_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_the_segmentor_moves_its_scores_towards_real(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, ADVERSARIAL_WITHOUT_NOISE)
    state = TrainState(config, CPU)
    state.set_rates(1e-3, 0.0)
    _, before = scores(state, config, batch)
    for _ in range(10):
        update(state, batch, config)
    _, after = scores(state, config, batch)
    assert abs(after - 1) < abs(before - 1)


def test_the_discriminator_separates_real_masks_from_predictions(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, ADVERSARIAL_WITHOUT_NOISE)
    state = TrainState(config, CPU)
    state.set_rates(0.0, 1e-3)
    real, fake = scores(state, config, batch)
    for _ in range(10):
        update(state, batch, config)
    real_after, fake_after = scores(state, config, batch)
    assert real_after - fake_after > real - fake


def test_each_loss_updates_only_its_own_network(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, ADVERSARIAL_WITHOUT_NOISE)
    state = TrainState(config, CPU)
    assert state.discriminator is not None
    for segmentor_lr, discriminator_lr in ((0.0, 1e-3), (1e-3, 0.0)):
        before = weights_of(state.segmentor), weights_of(state.discriminator)
        state.set_rates(segmentor_lr, discriminator_lr)
        update(state, batch, config)
        assert all_equal(before[0], weights_of(state.segmentor)) == (segmentor_lr == 0)
        assert all_equal(before[1], weights_of(state.discriminator)) == (discriminator_lr == 0)
    assert all(parameter.requires_grad for parameter in state.discriminator.parameters())


def test_the_adversarial_weight_does_not_affect_the_discriminator(tiny_config: Config, batch: Batch) -> None:
    gradients = []
    for weight in (0.1, 10.0):
        config = codec.override(tiny_config, {**ADVERSARIAL_WITHOUT_NOISE, "loss.adversarial": weight})
        state = TrainState(config, CPU)
        state.set_rates(0.0, 0.0)
        update(state, batch, config)
        assert state.discriminator is not None
        gradients.append(
            [parameter.grad.clone() for parameter in state.discriminator.parameters() if parameter.grad is not None]
        )
    assert gradients[0]
    assert all_equal(*gradients)


def test_loading_a_state_with_convolution_biases_keeps_the_outputs(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, {"teacher.decay": 0.9})
    earlier, now = TrainState(config, CPU), TrainState(config, CPU)
    networks = (earlier.segmentor, earlier.teacher)
    for layer in (layer for network in networks if network for layer in network.modules()):
        if isinstance(layer, ConvNorm):
            nn.init.normal_(layer[0].bias, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    expected = [network.eval()(batch.images).logits for network in networks if network]
    now.load_state_dict(copy.deepcopy(earlier.state_dict()))
    for network, logits in zip((now.segmentor, now.teacher), expected, strict=True):
        assert network is not None
        torch.testing.assert_close(network.eval()(batch.images).logits, logits, rtol=1e-4, atol=1e-4)
        assert not any(layer[0].bias.any() for layer in network.modules() if isinstance(layer, ConvNorm))  # type: ignore[operator]


def test_a_restored_state_continues_like_the_original(tiny_config: Config, batch: Batch) -> None:
    changes = {"teacher.decay": 0.9, "loss.areas": 1.0}
    config = codec.override(tiny_config, changes)
    areas = Areas(torch.tensor([0.97, 0.01, 0.01, 0.01]), torch.zeros(4), torch.tensor(9.0))
    batch = batch._replace(areas=areas)

    def steps(state: TrainState, count: int) -> dict[str, float]:
        losses: dict[str, Tensor] = {}
        for _ in range(count):
            state.set_rates(1e-3, 1e-3)
            state.noise.manual_seed(state.progress.step)
            losses = update(state, batch, config)
            state.progress.step += 1
        return {name: float(loss) for name, loss in losses.items()}

    straight, resumed = TrainState(config, CPU), TrainState(codec.override(config, {"train.seed": 5}), CPU)
    steps(straight, 2)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    assert steps(resumed, 2) == pytest.approx(steps(straight, 2), rel=1e-4)
    assert resumed.progress == straight.progress
    for mine, theirs in zip(resumed.eval_segmentor.parameters(), straight.eval_segmentor.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_without_adversarial_weights_there_is_no_discriminator(tiny_config: Config, batch: Batch) -> None:
    config = codec.override(tiny_config, {"loss.adversarial": 0})
    state = TrainState(config, CPU)
    assert state.discriminator is None
    assert set(update(state, batch._replace(masks=None), config)) == {"supervised"}


def test_scribbles_and_masks_have_separate_weights(tiny_config: Config) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 1, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (3, 32, 32), generator=generator).to(torch.uint8)
    weights = {"loss.adversarial": 0, "data.supervision": "mixed", "loss.supervised": 5.0, "loss.dense": 3.0}
    config = codec.override(tiny_config, weights)
    found = update_networks(TrainState(config, CPU), Batch(images, labels, None, None, num_dense=2), config)
    torch.testing.assert_close(found["supervised"], 5 * found["scribbles"] + 3 * found["dense"])


def test_slices_with_masks_add_a_soft_dice_loss_of_the_labelled_pixels(tiny_config: Config) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 4, 32, 32, generator=generator)
    images = torch.randn(3, 1, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (3, 32, 32), generator=generator).to(torch.uint8)
    labels[:, :5] = IGNORE
    masked = slice(1, None)  # the first slice has scribbles
    config = codec.override(
        tiny_config,
        {"loss.adversarial": 0, "data.supervision": "mixed", "loss.class_weights": 0, "loss.dense": 3.0},
    )

    def losses(weight: float) -> dict[str, Tensor]:
        weighted = codec.override(config, {"loss.dense_overlap": weight})
        state = TrainState(weighted, CPU)
        state.parallel_segmentor = lambda _: SegmentorOutput(logits.clone().requires_grad_(), {})  # type: ignore[assignment]
        batch = Batch(images, labels, None, None, num_dense=2)
        return update_networks(state, batch, weighted)

    dices = []
    for value in range(4):
        predicted, target = logits[masked].softmax(dim=1)[:, value, 5:], labels[masked, 5:] == value
        common, sizes = (predicted * target).sum(), predicted.sum() + target.sum()
        dices.append((2 * common + 1) / (sizes + 1))
    expected = 1 - sum(dices) / 4
    plain, with_overlap = losses(0.0), losses(0.5)
    torch.testing.assert_close(with_overlap["dense"] - plain["dense"], 0.5 * expected)
    torch.testing.assert_close(with_overlap["supervised"] - plain["supervised"], 3 * 0.5 * expected)
    torch.testing.assert_close(with_overlap["scribbles"], plain["scribbles"])
