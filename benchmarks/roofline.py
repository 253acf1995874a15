"""Roofline of a training step: its operations and memory traffic, against the peaks of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

STATED_TFLOPS: Mapping[str, float] = {"NVIDIA H100 80GB HBM3": 989.0, "NVIDIA H200": 989.0}
"""Dense bf16 peak by the manufacturer's data sheet, by device name."""


class Traffic(TorchDispatchMode):
    """Counts the bytes that each operation reads and writes, as if no data stayed in a cache between operations."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func is not torch.ops.aten.detach.default:
            touched = [part for part in tree_leaves((args, kwargs, result)) if isinstance(part, Tensor)]
            self.num_bytes += sum(part.nbytes for part in {id(part): part for part in touched}.values())
        return result


def count(step: Callable[[], object]) -> tuple[int, int]:
    """Floating-point operations of convolutions and matrix products, and bytes, of one eager `step`."""
    with FlopCounterMode(display=False) as operations:
        step()
    with Traffic() as traffic:
        step()
    return operations.get_total_flops(), traffic.num_bytes


def roofline(
    step: Callable[[], object],
    steps_per_second: float,
    device: torch.device,
    dtype: torch.dtype,
    stated_tflops: float | None,
) -> dict[str, float | str | None]:
    """Position of a step that runs at `steps_per_second` under the device's two roofs, which are measured here."""
    operations, num_bytes = count(step)
    peak, bandwidth = measure_matmul(device, dtype), measure_copy(device)
    reached, intensity = operations * steps_per_second, operations / num_bytes
    roof = min(peak, intensity * bandwidth)
    if stated_tflops is None and device.type == "cuda":
        stated_tflops = STATED_TFLOPS.get(torch.cuda.get_device_name(device))
    return {
        "precision": str(dtype).removeprefix("torch."),
        "gflop_per_step": operations / 1e9,
        "gbytes_per_eager_step": num_bytes / 1e9,
        "flop_per_byte": intensity,
        "reached_tflops": reached / 1e12,
        "measured_matmul_tflops": peak / 1e12,
        "measured_copy_gbytes_per_second": bandwidth / 1e9,
        "roof_tflops": roof / 1e12,
        "share_of_roof": reached / roof,
        "share_of_measured_matmul": reached / peak,
        "share_of_stated_peak": None if stated_tflops is None else reached / (stated_tflops * 1e12),
    }


def measure_matmul(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: left @ right, device)


def measure_copy(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy too large for any cache."""
    source = torch.zeros(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of ten repetitions."""
    times = []
    for _ in range(10):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - started)
    return min(times)


def wait(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
