"""The segmentor, its gates, and the discriminator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

from maag.config import codec
from maag.config.networks import DiscriminatorConfig, GateConfig
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.models.attention import AdversarialAttentionGate
from maag.models.build import build_segmentor
from maag.models.discriminator import (
    Discriminator,
    DiscriminatorNoise,
    draw_noise,
    pyramid_of_masks,
    pyramid_of_predictions,
)
from maag.models.segmentor import DecoderBlock, SegmentorOutput

SCALES = (0, 1, 2, 3)
NO_NOISE = {"instance_noise": 0.0, "label_noise": 0.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def downsampled(maps: Tensor, scale: int) -> Tensor:
    """Bilinear samples at the centres of squares of side 2**scale: the means of their middle four pixels."""
    side = 2**scale
    if scale == 0:
        return maps
    before, after = slice(side // 2 - 1, None, side), slice(side // 2, None, side)
    four = [maps[..., rows, columns] for rows in (before, after) for columns in (before, after)]
    return torch.stack(four).mean(dim=0)


def test_the_paper_preset_has_the_parameter_count_of_the_release() -> None:
    segmentor = build_segmentor(preset("acdc", "paper"))
    assert sum(parameter.numel() for parameter in segmentor.parameters()) == 4_622_676


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_gate_matches_its_formula(residual: bool, temperature: float) -> None:
    gate = AdversarialAttentionGate(6, 4, GateConfig(residual=residual, temperature=temperature))
    torch.nn.init.normal_(gate.classify.bias, generator=seeded(0))  # type: ignore[arg-type]
    evidence, features = torch.randn(2, 2, 6, 8, 5, generator=seeded(1))
    with torch.no_grad():
        gated, probabilities = gate(evidence, features)

    def as_numpy(tensor: Tensor | None) -> NDArray[np.float64]:
        assert tensor is not None
        return tensor.detach().double().numpy()

    logits = np.einsum("kc,nchw->nkhw", as_numpy(gate.classify.weight)[:, :, 0, 0], as_numpy(evidence))
    powers = np.exp((logits + as_numpy(gate.classify.bias)[:, None, None]) / temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    attention = 1 - expected[:, :1]
    np.testing.assert_allclose(as_numpy(probabilities), expected, atol=1e-6)
    np.testing.assert_allclose(as_numpy(gated), as_numpy(features) * (attention + residual), atol=1e-5)


def test_a_gate_reads_the_first_convolution_and_masks_the_second() -> None:
    block = DecoderBlock(6, 4, 3, GateConfig(), norm_momentum=0.1).eval()
    assert block.gate is not None
    below, skip = torch.randn(2, 6, 4, 4, generator=seeded(0)), torch.randn(2, 4, 8, 8, generator=seeded(1))
    evidence = block.first(torch.cat([block.upsample(below), skip], dim=1))
    probabilities = (block.gate.classify(evidence)).softmax(dim=1)
    gated, gate_map = block(below, skip)
    torch.testing.assert_close(gate_map, probabilities)
    torch.testing.assert_close(gated, block.second(evidence) * probabilities[:, 1:].sum(dim=1, keepdim=True))


def test_a_loss_on_a_gate_map_reaches_all_layers_below_it(tiny_config: Config) -> None:
    segmentor = build_segmentor(codec.override(tiny_config, {"gates.levels": (3,)}))
    segmentor(torch.randn(2, 1, 32, 32, generator=seeded(0))).gate_maps[3].square().sum().backward()
    lowest = segmentor.decoder[3]
    for part in (*segmentor.encoder, segmentor.bottleneck, lowest.upsample, lowest.first, lowest.gate.classify):  # type: ignore[union-attr]
        assert any(weight.grad is not None and weight.grad.any() for weight in part.parameters())  # type: ignore[union-attr]


def test_gradients_flow_through_skip_connections() -> None:
    block = DecoderBlock(6, 4, 3, None, norm_momentum=0.1)
    below, skip = torch.randn(2, 6, 4, 4, requires_grad=True), torch.randn(2, 4, 8, 8, requires_grad=True)
    block(below, skip)[0].square().sum().backward()
    assert below.grad is not None
    assert below.grad.any()
    assert skip.grad is not None
    assert skip.grad.any()


@pytest.mark.parametrize("size", [(32, 32), (96, 96), (224, 224), (32, 48)])
@pytest.mark.parametrize("levels", [(0, 1, 2, 3), (3, 1), ()])
def test_gate_maps_have_the_resolution_of_their_level(
    tiny_config: Config, size: tuple[int, int], levels: tuple[int, ...]
) -> None:
    segmentor = build_segmentor(codec.override(tiny_config, {"gates.levels": levels})).eval()
    with torch.no_grad():
        output = segmentor(torch.randn(2, 1, *size, generator=seeded(0)))
    assert output.logits.shape == (2, 4, *size)
    assert set(output.gate_maps) == set(levels)
    for level, maps in output.gate_maps.items():
        assert maps.shape == (2, 4, size[0] // 2**level, size[1] // 2**level)
        torch.testing.assert_close(maps.sum(dim=1), torch.ones_like(maps[:, 0]))


@pytest.mark.parametrize("conditioned", [False, True])
def test_a_conditioned_pyramid_shows_gate_maps_at_their_scales(conditioned: bool) -> None:
    logits = torch.randn(2, 4, 32, 48, generator=seeded(0))
    maps = {level: torch.rand(2, 4, 32 >> level, 48 >> level, generator=seeded(level)) for level in (0, 1, 3)}
    pyramid = pyramid_of_predictions(SegmentorOutput(logits, maps), SCALES, conditioned=conditioned)
    foreground = logits.softmax(dim=1)[:, 1:]
    expected = {scale: downsampled(foreground, scale) for scale in SCALES}
    if conditioned:
        expected |= {1: maps[1][:, 1:], 3: maps[3][:, 1:]}
    assert pyramid.keys() == expected.keys()
    for scale in SCALES:
        torch.testing.assert_close(pyramid[scale], expected[scale])


def test_a_loss_on_each_scale_reaches_the_prediction_shown_there() -> None:
    logits = torch.randn(2, 4, 32, 32, generator=seeded(0)).requires_grad_()
    gate_map = torch.rand(2, 4, 16, 16, generator=seeded(1)).requires_grad_()
    pyramid = pyramid_of_predictions(SegmentorOutput(logits, {1: gate_map}), SCALES, conditioned=True)
    for scale, source in ((0, logits), (1, gate_map), (2, logits), (3, logits)):
        (gradient,) = torch.autograd.grad(pyramid[scale].square().sum(), source, retain_graph=True)
        assert gradient.any()


def test_mask_pyramids_have_one_channel_per_foreground_class() -> None:
    masks = torch.randint(0, 4, (2, 32, 48), generator=seeded(0)).to(torch.uint8)
    pyramid = pyramid_of_masks(masks, 4, (0, 2, 3))
    one_hot = torch.stack([masks == label for label in (1, 2, 3)], dim=1).float()
    assert set(pyramid) == {0, 2, 3}
    for scale, maps in pyramid.items():
        assert maps.shape == (2, 3, 32 >> scale, 48 >> scale)
        torch.testing.assert_close(maps, downsampled(one_hot, scale))


def make_discriminator(**changes: Any) -> Discriminator:
    """A new discriminator at each call, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Discriminator(4, (32, 32), DiscriminatorConfig(width=4, **changes))


@pytest.fixture
def pyramid() -> dict[int, Tensor]:
    return {scale: torch.rand(6, 3, 32 >> scale, 32 >> scale, generator=seeded(scale)) for scale in SCALES}


def test_each_downsampling_convolution_has_spectral_norm_one(pyramid: dict[int, Tensor]) -> None:
    discriminator = make_discriminator().train()
    for _ in range(20):
        discriminator(pyramid)
    discriminator.eval()
    matrices = [block[1].weight.detach().flatten(start_dim=1) for block in discriminator.descend]  # type: ignore[index]
    assert len(matrices) == 3
    for matrix in matrices:
        assert float(torch.linalg.matrix_norm(matrix, ord=2)) == pytest.approx(1, abs=0.02)


def test_the_discriminator_matches_its_formula(pyramid: dict[int, Tensor]) -> None:
    discriminator = make_discriminator().eval()
    weights = {name: tensor.detach() for name, tensor in discriminator.named_parameters()}
    features = leaky_relu(conv2d(pyramid[0], weights["first.0.weight"], stride=2, padding=1), 0.2)
    for scale in (1, 2, 3):
        block = discriminator.descend[scale - 1][1]  # type: ignore[index]
        squeezed = conv2d(features, weights[f"squeeze.{scale - 1}.0.weight"]).sigmoid()
        joined = torch.cat([squeezed, pyramid[scale]], dim=1)
        # A kernel of 4 at stride 1 keeps the size with one pixel of padding before and two after.
        padded = pad(joined, (1, 2, 1, 2) if scale == 3 else (1, 1, 1, 1))
        features = conv2d(padded, block.weight, block.bias, stride=1 if scale == 3 else 2).tanh()  # type: ignore[union-attr]
    expected = (features.flatten(start_dim=1) @ weights["verdict.weight"].T)[:, 0]
    torch.testing.assert_close(discriminator(pyramid).detach(), expected.detach())


def test_instance_noise_is_standard_normal_and_flip_noise_uniform() -> None:
    noise = draw_noise(torch.Size((4000, 3, 4, 4)), seeded(0))
    assert float(noise.instance.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.instance.std()) == pytest.approx(1, abs=0.01)
    for part in (0.1, 0.5, 0.9):
        assert float((noise.flip < part).float().mean()) == pytest.approx(part, abs=0.03)


def noise_of(seed: int) -> DiscriminatorNoise:
    return draw_noise(torch.Size((6, 3, 32, 32)), seeded(seed))


@pytest.mark.parametrize("noise", [{}, {"label_noise": 0.0}, {"instance_noise": 0.0, "label_noise": 0.5}])
def test_training_noise_depends_only_on_the_generator(pyramid: dict[int, Tensor], noise: dict[str, float]) -> None:
    first, again, other = (make_discriminator(**noise).train()(pyramid, noise_of(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_zero_noise_strength_changes_nothing(pyramid: dict[int, Tensor]) -> None:
    first, other = (make_discriminator(**NO_NOISE).train()(pyramid, noise_of(seed)) for seed in (0, 1))
    assert torch.equal(first, other)


def test_evaluation_adds_no_noise(pyramid: dict[int, Tensor]) -> None:
    first = make_discriminator(instance_noise=1.0, label_noise=0.5).eval()(pyramid)
    assert first.shape == (6,)
    assert torch.equal(first, make_discriminator(**NO_NOISE).eval()(pyramid))


@pytest.mark.parametrize("scales", [(0,), (0, 2), (3, 0, 1), SCALES])
def test_the_score_depends_only_on_the_configured_scales(pyramid: dict[int, Tensor], scales: tuple[int, ...]) -> None:
    discriminator = make_discriminator(scales=scales).eval()
    score = discriminator({scale: pyramid[scale] for scale in scales})
    for scale in SCALES:
        changed = discriminator({**pyramid, scale: 1 - pyramid[scale]})
        assert (changed != score).all() if scale in scales else torch.equal(changed, score)


def test_label_noise_flips_the_sign_of_the_score(pyramid: dict[int, Tensor]) -> None:
    unflipped, flipped = (
        make_discriminator(instance_noise=0.0, label_noise=part).train()(pyramid, noise_of(0)) for part in (0.0, 1.0)
    )
    assert unflipped.all()
    assert torch.equal(unflipped, make_discriminator().train()(pyramid))
    assert torch.equal(flipped, -unflipped)
