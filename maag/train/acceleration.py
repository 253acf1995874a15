"""Precision and compilation of forward passes.

Networks, optimisers, checkpoints and losses are unaffected: weights stay fp32 and keep their names, and outputs are
float32.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from maag.config.training import TrainConfig
from maag.errors import ConfigError
from maag.models.segmentor import SegmentorOutput


def require_fast(config: TrainConfig, device: torch.device) -> None:
    """Raise ConfigError if `train.precision` would be slower than fp32 or `train.compile` cannot work."""
    name = "GPU" if device.type == "cuda" else "CPU"
    if config.precision == "bf16" and not _has_bf16(device):
        raise ConfigError(
            f"train.precision=bf16: this {name} has no bf16 hardware, so it would be slower than fp32; "
            "use train.precision=auto"
        )
    if config.compile and (needed := _missing_compiler(device)):
        raise ConfigError(f"train.compile=true: on a {name} it needs {needed}; install it, or leave the setting off")


def accelerated(network: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """A module that shares the parameters and buffers of `network` and runs faster; `network` itself in eager fp32."""
    faster = InBfloat16(network, device) if runs_in_bf16(config, device) else network
    if not config.compile:
        return faster
    # Training has few input shapes, so kernels specialised for each of them are the fastest.
    compiled = torch.compile(faster, dynamic=False)
    assert isinstance(compiled, nn.Module)
    return compiled


def runs_in_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether forward passes run in bf16: if set, or with `auto` on hardware where bf16 training is faster."""
    return config.precision == "bf16" or (config.precision == "auto" and _gains_by_bf16(device))


class InBfloat16(nn.Module):
    """Run a network with its convolutions and linear layers in bf16; its outputs are float32."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._network = network
        self._device_type = device.type

    def forward(self, *inputs: object) -> SegmentorOutput | Tensor:
        """Call the network under autocast."""
        with torch.autocast(self._device_type, torch.bfloat16):
            output: SegmentorOutput | Tensor = self._network(*inputs)
        if isinstance(output, Tensor):
            return output.float()
        return SegmentorOutput(output.logits.float(), {level: part.float() for level, part in output.gate_maps.items()})


def _gains_by_bf16(device: torch.device) -> bool:
    # The gain on Arm CPUs has not been measured.
    return _has_bf16(device) and (device.type == "cuda" or _is_x86())


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if _is_x86():
        # oneDNN's own answer, below, includes processors on which it only emulates bf16.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def _missing_compiler(device: torch.device) -> str | None:
    """What torch's compiler needs and does not find; None if nothing is missing."""
    if device.type != "cuda":
        found = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
        return None if found else "a C++ compiler, such as g++"
    if find_spec("triton") is None:
        return "Triton (python -m pip install triton)"
    # Triton compiles its kernel launchers with $CC alone, if that is set.
    named = os.environ.get("CC")
    if any(shutil.which(name) for name in ([named] if named else ["gcc", "clang"])):
        return None
    return "a C compiler for Triton: " + (f"$CC names {named}, which is not there" if named else "gcc or clang")
