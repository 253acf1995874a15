"""Description of a TensorRT engine, which fits one ONNX file, GPU model, TensorRT version and CUDA version."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from deploy.artifact.tensors import TensorSpec, has_dynamic_size
from maag.config.networks import SIZE_MULTIPLE

Precision = Literal["fp32", "fp16", "int8"]
Shape = tuple[int, int, int, int]
"""(N, C, H, W)."""

_STRICT = ConfigDict(extra="forbid")
# Memory is allocated for the largest shape; at four times the area smaller batches fill a GPU.
_BATCHES = (1, 16, 64)
_BATCHES_OF_ANY_SIZE = (1, 8, 16)
_LARGEST_SIDE = 2  # times the training grid's


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Environment:
    """What must be equal where an engine was built and where it runs."""

    gpu: str
    compute_capability: str
    """`9.0`."""
    tensorrt: str
    cuda: str

    @property
    def name(self) -> str:
        """For file names: `nvidia-h100-80gb-hbm3-sm90-trt11.4.0.106-cuda13.0`."""
        gpu = re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-")
        return f"{gpu}-sm{self.compute_capability.replace('.', '')}-trt{self.tensorrt}-cuda{self.cuda}"


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Profile:
    """Input shapes (N, C, H, W) of an engine's optimisation profile: minimum, optimum and maximum."""

    smallest: Shape
    tuned: Shape
    largest: Shape

    @property
    def name(self) -> str:
        """`1x1x224x224 / 16x1x224x224 / 64x1x224x224`."""
        return " / ".join("x".join(map(str, shape)) for shape in (self.smallest, self.tuned, self.largest))


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Engine:
    """An engine file, as described by the manifest, or by the sidecar file of a rebuilt one."""

    file: str
    sha256: str
    environment: Environment
    onnx_sha256: str
    """SHA-256 of the graph that it was built from."""
    precision: Precision
    profile: Profile


def engine_file(precision: Precision, environment: Environment) -> str:
    """`model-fp16-nvidia-h100-80gb-hbm3-sm90-trt11.4.0.106-cuda13.0.engine`."""
    return f"model-{precision}-{environment.name}.engine"


def differences(engine: Engine, here: Environment, onnx_sha256: str, profile: Profile) -> str | None:
    """Why an engine cannot be used here, each difference with both values; None if it can."""
    pairs = [
        ("GPU", engine.environment.gpu, here.gpu),
        ("compute capability", engine.environment.compute_capability, here.compute_capability),
        ("TensorRT", engine.environment.tensorrt, here.tensorrt),
        ("CUDA", engine.environment.cuda, here.cuda),
        ("model.onnx", engine.onnx_sha256[:12], onnx_sha256[:12]),
        ("profile", engine.profile.name, profile.name),
    ]
    found = [f"{what} {then} there, {now} here" for what, then, now in pairs if then != now]
    return "; ".join(found) or None


def profile_of(spec: TensorSpec, size_px: tuple[int, int]) -> Profile:
    """The shapes for a model with the input `spec`.

    Batch sizes are 1, 16, 64 at the training grid's size; with dynamic height and width 1, 8, 16, at 16 x 16, the
    training grid's size, and twice that.
    """
    channels = int(spec.shape[1])
    height, width = size_px
    if not has_dynamic_size(spec):
        smallest, tuned, largest = ((batch, channels, height, width) for batch in _BATCHES)
    else:
        few, some, many = _BATCHES_OF_ANY_SIZE
        smallest = (few, channels, SIZE_MULTIPLE, SIZE_MULTIPLE)
        tuned = (some, channels, height, width)
        largest = (many, channels, _LARGEST_SIDE * height, _LARGEST_SIDE * width)
    return Profile(smallest=smallest, tuned=tuned, largest=largest)
