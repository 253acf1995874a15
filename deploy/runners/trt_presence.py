"""Check whether TensorRT can be used here, and if not, what is missing.

TensorRT's builder and runtime end the process if there is no GPU, so this is checked first.
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
"""The first version that can take every type from the graph, as 11 and later always do."""

_PACKAGE = "tensorrt"
_INSTALL = "pip install 'maag[tensorrt]' --extra-index-url https://pypi.nvidia.com"


class TensorRT(NamedTuple):
    """TensorRT and its device."""

    trt: Any
    """The module `tensorrt`, or a stand-in of a test."""
    cuda: Cuda

    @property
    def environment(self) -> Environment:
        """The environment of engines built here."""
        return Environment(
            gpu=self.cuda.gpu,
            compute_capability=self.cuda.compute_capability,
            tensorrt=str(self.trt.__version__),
            cuda=self.cuda.version,
        )


class Presence(NamedTuple):
    """Result of the check for TensorRT."""

    trt: Any | None
    """The module, if it can be imported and is new enough."""
    missing: tuple[str, ...]
    """Clauses on what is missing and how to get it; empty if engines can be built and run."""

    @property
    def sentence(self) -> str:
        """Everything that is missing."""
        return ", and ".join(self.missing)


def import_tensorrt() -> Any:
    """The module `tensorrt`; importing it does not touch a device. Raises ImportError or OSError."""
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
        missing.append(f"TensorRT's package is installed without its libraries, {reason} ({_INSTALL})")
    if trt is not None and (found := _version(trt)) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        missing.append(
            f"TensorRT {'.'.join(map(str, found))} is older than {wanted}, the oldest supported version ({_INSTALL})"
        )
        trt = None
    if not has_gpu():
        missing.append(
            "PyTorch finds no GPU (engines must be built on the NVIDIA GPU that runs them, with a CUDA build of torch)"
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
