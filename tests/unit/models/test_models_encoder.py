"""The segmentor's encoder: the paper's by default, and residual where configured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, relu

from maag.checkpoint import BEST, LAST, load_segmentor, load_state, save_segmentor, save_state
from maag.config import codec
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.models.build import build_segmentor
from maag.models.layers import ConvNorm, ResidualBlock
from maag.models.segmentor import Segmentor
from maag.models.sync_norm import SynchronizedBatchNorm2d, with_synchronized_norms
from maag.train.state import TrainState

CPU = torch.device("cpu")
DEPTHS = [(1, 2, 2, 2), (1, 3, 4, 6), (0, 2, 0, 1)]
CONV = ["weight", "bias"]
NORM = [*CONV, "running_mean", "running_var", "num_batches_tracked"]
CONV_NORM = [*(f"0.{name}" for name in CONV), *(f"1.{name}" for name in NORM)]


def with_residual_blocks(config: Config, blocks: tuple[int, ...]) -> Config:
    return codec.override(config, {"segmentor.residual_blocks": blocks})


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def without_encoder(segmentor: Segmentor) -> dict[str, torch.Size]:
    return {name: shape for name, shape in shapes(segmentor).items() if not name.startswith("encoder.")}


def test_the_default_encoder_keeps_the_parameter_names_of_existing_checkpoints(tiny_config: Config) -> None:
    segmentor = build_segmentor(tiny_config)
    expected = [f"{level}.{half}.{name}" for level in range(4) for half in range(2) for name in CONV_NORM]
    assert list(segmentor.encoder.state_dict()) == expected


def test_the_default_has_no_residual_blocks(tiny_config: Config) -> None:
    torch.manual_seed(0)
    default = build_segmentor(tiny_config)
    torch.manual_seed(0)
    explicit = build_segmentor(with_residual_blocks(tiny_config, (0, 0, 0, 0)))
    for (name, one), (same_name, other) in zip(
        default.state_dict().items(), explicit.state_dict().items(), strict=True
    ):
        assert name == same_name
        assert torch.equal(one, other)


def test_residual_blocks_have_stable_parameter_names(tiny_config: Config) -> None:
    level = build_segmentor(with_residual_blocks(tiny_config, (0, 2, 0, 0))).encoder[1]
    assert list(level.state_dict()) == [
        *(f"0.residual.{half}.{name}" for half in range(2) for name in CONV_NORM),
        *(f"0.shortcut.{name}" for name in CONV_NORM),
        *(f"1.residual.{half}.{name}" for half in range(2) for name in CONV_NORM),
    ]


@pytest.mark.parametrize("blocks", DEPTHS)
def test_residual_blocks_deepen_only_the_encoder(tiny_config: Config, blocks: tuple[int, ...]) -> None:
    segmentor = build_segmentor(with_residual_blocks(tiny_config, blocks))
    for level, count in zip(segmentor.encoder, blocks, strict=True):
        kernels = [module.kernel_size for module in level.modules() if isinstance(module, nn.Conv2d)]
        assert kernels.count((3, 3)) == 2 * (count or 1)
        # One projection, where the level's first block changes the channels.
        assert kernels.count((1, 1)) == (count > 0)
    assert without_encoder(segmentor) == without_encoder(build_segmentor(tiny_config))
    output = segmentor(images())
    assert output.logits.shape == (4, 4, 32, 32)
    assert output.gate_maps.keys() == set(tiny_config.gates.levels)


@pytest.mark.parametrize("channels", [3, 5])
def test_a_residual_block_matches_its_formula(channels: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, channels, norm_momentum=0.1)
    for _ in range(5):  # Statistics of batch normalisation that differ from the initial ones.
        block(torch.randn(4, 3, 6, 8))
    parts = block.eval().state_dict()

    def conv_norm(features: Tensor, path: str) -> Tensor:
        kernel = parts[f"{path}.0.weight"]
        convolved = conv2d(features, kernel, parts[f"{path}.0.bias"], padding=kernel.shape[-1] // 2)
        mean, variance = parts[f"{path}.1.running_mean"], parts[f"{path}.1.running_var"]
        return batch_norm(convolved, mean, variance, parts[f"{path}.1.weight"], parts[f"{path}.1.bias"])

    inputs = torch.randn(2, 3, 6, 8)
    before = inputs.clone()
    residual = conv_norm(relu(conv_norm(inputs, "residual.0")), "residual.1")
    shortcut = inputs if channels == 3 else conv_norm(inputs, "shortcut")
    with torch.no_grad():
        torch.testing.assert_close(block(inputs), relu(residual + shortcut))
    assert torch.equal(inputs, before)


def test_gradients_reach_every_parameter(tiny_config: Config) -> None:
    segmentor = build_segmentor(with_residual_blocks(tiny_config, (1, 3, 4, 6)))
    segmentor(images()).logits.square().sum().backward()
    frozen = {name for name, parameter in segmentor.named_parameters() if not parameter.requires_grad}
    # Batch normalisation subtracts the mean, and with it any bias before it.
    assert frozen == {f"{path}.0.bias" for path, layer in segmentor.named_modules() if isinstance(layer, ConvNorm)}
    for name, parameter in segmentor.named_parameters():
        assert name in frozen or (parameter.grad is not None and parameter.grad.any()), name


def test_the_encoder_normalises_like_the_decoder(tiny_config: Config) -> None:
    changes = {"segmentor.residual_blocks": [1, 2, 2, 2], "segmentor.norm_momentum": 0.3}
    segmentor = with_synchronized_norms(build_segmentor(codec.override(tiny_config, changes)))
    norms = [module for module in segmentor.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 * (1 + 2 + 2 + 2) + 4
    norms += [module for module in segmentor.decoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(type(norm), norm.momentum) for norm in norms} == {(SynchronizedBatchNorm2d, 0.3)}


def test_checkpoints_restore_a_residual_segmentor(tiny_config: Config, tmp_path: Path) -> None:
    config = with_residual_blocks(tiny_config, (1, 2, 2, 2))
    state = TrainState(config, CPU)
    state.segmentor(images())
    save_segmentor(tmp_path / BEST, config, state.segmentor.state_dict(), {})
    save_state(tmp_path / LAST, config, state.state_dict())
    trained = load_segmentor(tmp_path / BEST)
    resumed = TrainState(codec.override(config, {"train.seed": 5}), CPU)
    loaded_config, loaded_state = load_state(tmp_path / LAST, CPU)
    resumed.load_state_dict(loaded_state)
    assert trained.config == loaded_config == config
    expected = state.segmentor.state_dict()
    for loaded in (trained.segmentor.state_dict(), resumed.segmentor.state_dict()):
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_the_best_preset_has_the_network_of_the_paper() -> None:
    with torch.device("meta"):
        best, paper = (build_segmentor(preset("acdc", name)) for name in ("best", "paper"))
    assert shapes(best) == shapes(paper)
    assert sum(parameter.numel() for parameter in best.parameters()) == 4_622_676
