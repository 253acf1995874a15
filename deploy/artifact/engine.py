"""What a TensorRT engine belongs to: one ONNX file, one kind of GPU, one TensorRT, one CUDA."""

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
# Memory is taken for the largest shape; at four times the area fewer slices at once fill a GPU.
_BATCHES = (1, 16, 64)
_BATCHES_OF_ANY_SIZE = (1, 8, 16)
_LARGEST_SIDE = 2  # times the training grid's


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Environment:
    """What must be the same where an engine was built and where it runs."""

    gpu: str
    compute_capability: str
    """`9.0`."""
    tensorrt: str
    cuda: str

    @property
    def name(self) -> str:
        """For files: `nvidia-h100-80gb-hbm3-sm90-trt11.4.0.106-cuda13.0`."""
        gpu = re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-")
        return f"{gpu}-sm{self.compute_capability.replace('.', '')}-trt{self.tensorrt}-cuda{self.cuda}"


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Profile:
    """The input shapes (N, C, H, W) that an engine takes, from the smallest to the largest, and the one it is tuned
    for."""

    smallest: Shape
    tuned: Shape
    largest: Shape

    @property
    def name(self) -> str:
        """`1x1x224x224 / 16x1x224x224 / 64x1x224x224`."""
        return " / ".join("x".join(map(str, shape)) for shape in (self.smallest, self.tuned, self.largest))


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Engine:
    """An engine file, as the manifest and the side-car beside a rebuilt one describe it."""

    file: str
    sha256: str
    environment: Environment
    onnx_sha256: str
    """Of the graph that it was built from."""
    precision: Precision
    profile: Profile


def engine_file(precision: Precision, environment: Environment) -> str:
    """`model-fp16-nvidia-h100-80gb-hbm3-sm90-trt11.4.0.106-cuda13.0.engine`."""
    return f"model-{precision}-{environment.name}.engine"


def differences(engine: Engine, here: Environment, onnx_sha256: str, profile: Profile) -> str | None:
    """Why an engine cannot be used here, each difference with both values; None where it can."""
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

    Batches are 1, 16, 64 of the training grid; where height and width are free 1, 8, 16, and sides go from 16 over
    the training grid's to twice the training grid's.
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
