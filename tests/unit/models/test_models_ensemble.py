"""The average of several networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maag.config.codec import override
from maag.data.catalog import preset
from maag.models.build import build_segmentor
from maag.models.ensemble import Ensemble
from maag.models.segmentor import SegmentorOutput

IMAGES = torch.zeros(2, 1, 2, 3)


class Fixed(nn.Module):
    """A network that gives the same logits for all images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> SegmentorOutput:
        return SegmentorOutput(self.logits, {1: self.logits})


@settings(max_examples=50, deadline=None)
@given(
    num_networks=st.integers(1, 5),
    num_classes=st.integers(2, 5),
    spread=st.floats(0.1, 200.0),
    shift=st.floats(-1000.0, 1000.0),
    seed=st.integers(0, 2**31),
)
def test_the_softmax_is_the_mean_of_the_networks_probabilities(
    num_networks: int, num_classes: int, spread: float, shift: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(num_networks, 2, num_classes, 2, 3, generator=generator) + shift
    found = Ensemble([Fixed(each) for each in logits])(IMAGES)
    expected = logits.double().softmax(dim=2).mean(dim=0)
    torch.testing.assert_close(found.logits.softmax(dim=1).double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.logits.exp().sum(dim=1), torch.ones(2, 2, 3), rtol=1e-4, atol=0)
    assert found.gate_maps == {}


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 2**31))
def test_the_order_of_the_networks_does_not_matter(order: list[int], seed: int) -> None:
    logits = 20 * torch.randn(4, 2, 3, 2, 3, generator=torch.Generator().manual_seed(seed))
    one = Ensemble([Fixed(each) for each in logits])(IMAGES).logits
    other = Ensemble([Fixed(logits[place]) for place in order])(IMAGES).logits
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gap", [10.0, 1e3, 1e4])
def test_opposite_certainties_stay_finite_in_half_precision(gap: float) -> None:
    certain = torch.tensor([gap, 0.0, -gap], dtype=torch.float16).reshape(1, 3, 1, 1)
    found = Ensemble([Fixed(certain), Fixed(certain)])(IMAGES).logits
    assert found.dtype == torch.float16
    assert found.isfinite().all()
    mixed = Ensemble([Fixed(certain), Fixed(certain.flip(1))])(IMAGES).logits
    expected = torch.tensor([0.5, 0.0, 0.5]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(mixed.float().softmax(dim=1), expected, rtol=0, atol=1e-3)


def test_segmentors_of_different_widths_are_averaged() -> None:
    config = override(preset("acdc", "fast"), {"data.size_px": [32, 32]})
    networks = [build_segmentor(override(config, {"segmentor.width": width})).eval() for width in (2, 4)]
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = Ensemble(networks).eval()(images).logits.softmax(dim=1)
        expected = sum(network(images).logits.softmax(dim=1) for network in networks) / 2
    torch.testing.assert_close(found, expected)
