"""Whether TensorRT can be used here, and if not what is missing. Nothing of it is touched before there is a GPU.

TensorRT's own builder and runtime end the process where there is no GPU, so that must be known first.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from deploy.artifact.engine import Environment
from deploy.runners.cuda import Cuda, TorchCuda
from maag.errors import ExportError, first_line

OLDEST = (10, 12)
"""The first version that takes every type from the graph, as all do from 11 on."""

_PACKAGE = "tensorrt"
_INSTALL = "pip install 'maag[tensorrt]' --extra-index-url https://pypi.nvidia.com"


class TensorRT(NamedTuple):
    """TensorRT and the device that it works on."""

    trt: Any
    """The module `tensorrt`, or what stands for it in a test."""
    cuda: Cuda

    @property
    def environment(self) -> Environment:
        """What engines that are built here belong to."""
        return Environment(
            gpu=self.cuda.gpu,
            compute_capability=self.cuda.compute_capability,
            tensorrt=str(self.trt.__version__),
            cuda=self.cuda.version,
        )


class Presence(NamedTuple):
    """What there is of TensorRT."""

    trt: Any | None
    """The module, where it can be imported and is new enough."""
    missing: tuple[str, ...]
    """What is missing and how to get it, each a clause; none where engines can be built and run."""

    @property
    def sentence(self) -> str:
        """All that is missing."""
        return ", and ".join(self.missing)


def import_tensorrt() -> Any:
    """The module `tensorrt`; its import touches no device. Raises ImportError or OSError."""
    return importlib.import_module(_PACKAGE)


def look_for_tensorrt(
    load: Callable[[], Any] = import_tensorrt, has_gpu: Callable[[], bool] = torch.cuda.is_available
) -> Presence:
    """Look for the package, its libraries, its version and a GPU, without touching a device."""
    missing = []
    trt = None
    try:
        trt = load()
    except ModuleNotFoundError as error:
        if error.name == _PACKAGE:
            missing.append(f"TensorRT is not installed ({_INSTALL})")
        else:
            missing.append(f"TensorRT's package is damaged, {error} ({_INSTALL})")
    except (ImportError, OSError) as error:
        reason = first_line(error)
        missing.append(f"TensorRT's package is there without its libraries, {reason} ({_INSTALL})")
    if trt is not None and (found := _version(trt)) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        missing.append(
            f"TensorRT {'.'.join(map(str, found))} is older than {wanted}, the first that will do ({_INSTALL})"
        )
        trt = None
    if not has_gpu():
        missing.append(
            "PyTorch sees no GPU (an engine is built on the very NVIDIA GPU that it is for, with a CUDA build of torch)"
        )
    return Presence(trt, tuple(missing))


def open_tensorrt() -> TensorRT:
    """TensorRT on the current CUDA device. Raises ExportError with what is missing."""
    presence = look_for_tensorrt()
    if presence.missing:
        raise ExportError(presence.sentence)
    return TensorRT(presence.trt, TorchCuda())


def _version(trt: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(trt.__version__))[:2])
