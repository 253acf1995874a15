"""Faster forward passes: nearly the same losses, the same names, and no step that waits for the device."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from short_runs import ALL_AUGMENTATIONS, ALL_TERMS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from maag.config import codec
from maag.config.schema import Config
from maag.config.training import TrainConfig
from maag.data.cache.prepared import PreparedData
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.splits import Split
from maag.errors import ConfigError
from maag.models.build import build_discriminator
from maag.models.discriminator import pyramid_of_masks
from maag.train.acceleration import InBfloat16, accelerated, require_fast, runs_in_bf16
from maag.train.checkpointing import NO_SAVES
from maag.train.loop import Loop
from maag.train.reports import Listeners
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.stopping import StopRequest
from maag.train.validate import ValidationDice

CPU = torch.device("cpu")
EVERYTHING = {**ALL_TERMS, **ALL_AUGMENTATIONS}
SYNCHRONIZING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"})
"""Operations that wait for a CUDA device, since Python reads a value or a size."""


class RefuseSynchronization(TorchDispatchMode):
    """Refuses the operations in SYNCHRONIZING, and scalar constants copied to the device one by one."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func).split(".")[1]
        waits = name in SYNCHRONIZING or (name == "lift_fresh" and args[0].ndim == 0)
        assert not waits, f"aten.{name} within the loop: a CUDA device would be waited for"
        return func(*args, **(kwargs or {}))


class AutocastRecorder(TorchFunctionMode):
    """Records for each function whether autocast was on when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, set[bool]] = defaultdict(set)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.by_name[getattr(func, "__name__", "")].add(torch.is_autocast_enabled("cpu"))
        return func(*args, **(kwargs or {}))


class NoValidation:
    """A validator that measures nothing."""

    def dice(self, segmentor: object) -> ValidationDice:
        return ValidationDice(per_class={}, mean=0.0)


def losses_of(config: Config, prepared: PreparedData, split: Split, steps: int) -> tuple[TrainState, list[Any]]:
    state = TrainState(config, CPU)
    state.set_rates(1e-4, 1e-4)
    batches = TrainingBatches(supervise(prepared, split, config), config, CPU)
    losses = []
    for step in range(steps):
        state.noise.manual_seed(step)
        losses.append({name: float(loss) for name, loss in update(state, batches.at(step), config).items()})
        state.progress.step += 1
    return state, losses


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["MAAG", "everything"])
def test_bf16_stays_close_to_fp32(
    tiny_config: Config, prepared: PreparedData, split: Split, changes: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, changes)
    _, expected = losses_of(config, prepared, split, 3)
    state, found = losses_of(codec.override(config, {"train.precision": "bf16"}), prepared, split, 3)
    assert found != expected
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.02)
    floats = [tensor for tensor in tensors_of(state.state_dict()) if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float32}


def tensors_of(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors_of(value)]
    if isinstance(state, tuple):
        return [tensor for value in state for tensor in tensors_of(value)]
    return [state] if isinstance(state, Tensor) else []


def test_the_spectral_norm_iterates_outside_autocast(tiny_config: Config) -> None:
    masks = pyramid_of_masks(torch.zeros(2, 32, 32, dtype=torch.uint8), 4, tiny_config.discriminator.scales)
    with AutocastRecorder() as recorder:
        scores = InBfloat16(build_discriminator(tiny_config), CPU)(masks)
    assert scores.dtype == torch.float32
    assert recorder.by_name["mv"] == {False}
    assert recorder.by_name["conv2d"] == {True}


def test_eager_fp32_returns_the_network_itself(tiny_config: Config) -> None:
    network = build_discriminator(tiny_config)
    assert accelerated(network, TrainConfig(), CPU) is network


@pytest.mark.parametrize("has_avx512_bf16", [False, True])
@pytest.mark.parametrize("has_amx", [False, True])
def test_auto_precision_is_bf16_on_cpus_with_bf16_hardware(
    monkeypatch: pytest.MonkeyPatch, has_amx: bool, has_avx512_bf16: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_avx512_bf16)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert runs_in_bf16(TrainConfig(precision="auto"), CPU) == (has_amx or has_avx512_bf16)
    require_fast(TrainConfig(precision="auto"), CPU)


def test_slow_bf16_and_compilation_without_a_compiler_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ConfigError, match=r"train\.precision=bf16: this CPU has no bf16 hardware.*precision=auto"):
        require_fast(TrainConfig(precision="bf16"), CPU)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "none")
    with pytest.raises(ConfigError, match=r"train\.compile=true: on a CPU it needs a C\+\+ compiler"):
        require_fast(TrainConfig(compile=True), CPU)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    require_fast(TrainConfig(precision="bf16"), CPU)


def test_compiling_for_a_gpu_needs_triton_and_a_c_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled, gpu = TrainConfig(compile=True), torch.device("cuda")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match=r"train\.compile=true: on a GPU it needs Triton \(.*pip install triton"):
        require_fast(compiled, gpu)
    triton = ModuleType("triton")
    triton.__spec__ = ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", triton)
    with pytest.raises(ConfigError, match="on a GPU it needs a C compiler for Triton: gcc or clang; install it"):
        require_fast(compiled, gpu)
    for name in ("gcc", "mycc"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).touch(mode=0o755)
    require_fast(compiled, gpu)
    monkeypatch.setenv("CC", "mycc")
    require_fast(compiled, gpu)
    monkeypatch.setenv("CC", "none")
    with pytest.raises(ConfigError, match=r"a C compiler for Triton: \$CC names none, which is not there"):
        require_fast(compiled, gpu)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["MAAG", "everything"])
def test_a_batch_is_augmented_on_the_device_with_changes_drawn_on_the_cpu(
    tiny_config: Config, prepared: PreparedData, split: Split, changes: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, changes)
    device = torch.device("meta")  # draws nothing itself, and refuses to compute with tensors of other devices
    batch = TrainingBatches(supervise(prepared, split, config), config, device).at(0)
    assert {part.device for part in tensors_of(batch)} == {device}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["MAAG", "everything"])
def test_no_step_waits_for_the_device(
    short_config: Config, prepared: PreparedData, split: Split, changes: dict[str, Any]
) -> None:
    config = codec.override(short_config, {"optim.epochs": 1, **changes})
    state = TrainState(config, CPU)
    batches = TrainingBatches(supervise(prepared, split, config), config, CPU)
    loop = Loop(state, batches, NoValidation(), config, NO_SAVES, Listeners(), StopRequest())  # type: ignore[arg-type]
    with RefuseSynchronization():
        assert loop.run() == "done"
    assert state.progress.step == batches.steps_per_epoch > 1
