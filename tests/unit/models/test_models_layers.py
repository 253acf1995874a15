"""Layers match those of torch and leave out what has no effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from maag.models.layers import ConvNorm, DenseGradient, conv_block, halving_conv, upsample
from maag.models.sync_norm import with_synchronized_norms


def with_biases(layer: ConvNorm) -> nn.Sequential:
    """The same layers as plain torch modules, with non-zero biases and statistics."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (layer[0].bias, layer[1].running_mean, layer[1].weight, layer[1].bias):
        assert isinstance(tensor, Tensor)
        tensor.data = torch.randn(tensor.shape, generator=generator)
    return nn.Sequential(*layer)


LAYERS = [
    pytest.param(lambda: conv_block(3, 5, kernel=3, norm_momentum=0.1), id="conv_block"),
    pytest.param(lambda: conv_block(3, 5, kernel=1, norm_momentum=0.1), id="pointwise conv_block"),
    pytest.param(lambda: upsample(3, 5, norm_momentum=0.1), id="upsample"),
]


@pytest.mark.parametrize("make", LAYERS)
def test_a_bias_before_a_normalisation_matters_only_in_evaluation(make: object) -> None:
    layer: ConvNorm = make()  # type: ignore[operator]
    plain = with_biases(layer)
    images = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer.eval()(images), plain.eval()(images))
    torch.testing.assert_close(layer.train()(images), plain.train()(images), rtol=1e-4, atol=1e-5)
    layer(images).sum().backward()
    bias = layer[0].bias
    assert isinstance(bias, Tensor)
    assert bias.grad is None


@pytest.mark.parametrize("make", LAYERS)
def test_absorbing_the_bias_keeps_the_outputs(make: object) -> None:
    layer: ConvNorm = make()  # type: ignore[operator]
    with_biases(layer)
    layer.eval()
    images = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    before = layer(images)
    layer.absorb_bias()
    bias = layer[0].bias
    assert isinstance(bias, Tensor)
    assert not bias.any()
    torch.testing.assert_close(layer(images), before, rtol=1e-4, atol=1e-5)


def test_dense_gradient_makes_a_strided_gradient_contiguous() -> None:
    features = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    passed = DenseGradient.apply(features)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(passed, features, rtol=0, atol=0)
    seen: list[Tensor] = []
    features.register_hook(seen.append)
    joined = torch.cat([passed, torch.zeros_like(features)], dim=1)
    weights = torch.randn(joined.shape).to(memory_format=torch.channels_last)
    (joined * weights).sum().backward()
    torch.testing.assert_close(seen[0], weights[:, :3], rtol=0, atol=0)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def norms() -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """torch's and a synchronised one, with equal, non-initial parameters."""
    plain, synchronised = nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3, momentum=0.3)
    for norm in (plain, synchronised):
        generator = torch.Generator().manual_seed(0)
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            assert tensor is not None
            tensor.normal_(generator=generator)
    return plain, with_synchronized_norms(synchronised)


@pytest.mark.usefixtures("group_of_one")
def test_synchronised_normalisation_with_one_worker_matches_torch() -> None:
    plain, synchronised = norms()
    features = torch.randn(2, 3, 3, 2, generator=torch.Generator().manual_seed(1))  # few, so that n - 1 is not n
    images = [features.clone().requires_grad_() for _ in range(2)]
    for norm, image in zip((plain, synchronised), images, strict=True):
        norm(image).sin().sum().backward()
    torch.testing.assert_close(synchronised(features), plain(features))
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=1e-3, atol=1e-4)
    assert synchronised.weight.grad is not None
    torch.testing.assert_close(synchronised.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(synchronised.state_dict(), plain.state_dict())


@pytest.mark.usefixtures("group_of_one")
def test_synchronised_normalisation_computes_in_full_precision() -> None:
    plain, synchronised = norms()
    images = (5 + torch.randn(2, 3, 33, 31, generator=torch.Generator().manual_seed(1))).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = synchronised(images)
    torch.testing.assert_close(found, plain(images.float()), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(synchronised.running_var, plain.running_var, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [conv_block(64, 32, kernel=3, norm_momentum=0.1)[0], halving_conv(64, 32)[0]])
def test_initial_weights_follow_he_initialisation(layer: nn.Conv2d) -> None:
    """He et al. 2015: a variance of 2 over the number of inputs."""
    fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
