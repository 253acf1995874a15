"""Run a `model.onnx` on ONNX Runtime with TensorRT, CUDA or the CPU, never on another than its name says."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from deploy.artifact.engine import Precision
from deploy.artifact.manifest import sha256_of
from deploy.artifact.tensors import PROBABILITIES, TensorSpec, has_dynamic_size, require_fitting
from maag.data.cache.root import default_cache_root
from maag.errors import CheckpointError, ConfigError, first_line
from maag.storage import require_writable_directory

Device = Literal["auto", "cpu", "cuda"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_TENSORRT_LIBRARY = "libnvinfer.so.10"
"""The library ONNX Runtime's provider links to, whatever TensorRT version Python has."""
_NAMES = {_CPU: "onnx-cpu", _CUDA: "onnx-cuda", _TENSORRT: "onnx-tensorrt"}
_ERRORS_ONLY = 3


class OnnxRunner:
    """A `model.onnx` on ONNX Runtime.

    Args:
        model: the file.
        spec: its input, from the manifest.
        device: auto uses CUDA if it is available and ONNX Runtime can use it.
        batch_size: slices per batch.
        precision: the graph's. int8 runs without ONNX Runtime's fusions, which saturate on CPUs without VNNI.

    Raises:
        CheckpointError: ONNX Runtime cannot open the file.
        ConfigError: device is cuda, and ONNX Runtime cannot use CUDA here.
        StorageError: the cache of ONNX Runtime's TensorRT engines cannot be written.
    """

    def __init__(
        self,
        model: Path,
        spec: TensorSpec,
        device: Device = "auto",
        batch_size: int = 16,
        *,
        precision: Precision = "fp32",
    ) -> None:
        providers = [] if device == "cpu" else _providers(model, spec, batch_size, precision)
        self._session = _open_session(model, device, providers, fused=precision != "int8")
        self._spec = spec
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        """`onnx-cpu`, `onnx-cuda` or `onnx-tensorrt`: what the session actually runs on."""
        return _NAMES[self._session.get_providers()[0]]

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) float32 of normalised images (N, C, H, W) float32.

        Raises:
            DataError: the model does not accept C, H or W.
        """
        return self._run([PROBABILITIES], images)[PROBABILITIES]

    def outputs(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """All outputs by name, with the types in the manifest; raises as a call does."""
        return self._run([output.name for output in self._session.get_outputs()], images)

    def _run(self, names: list[str], images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        require_fitting(images, self._spec)
        parts = [
            self._session.run(names, {self._spec.name: images[start : start + self._batch_size]})
            for start in range(0, len(images), self._batch_size)
        ]
        return {name: np.concatenate(some) for name, some in zip(names, zip(*parts, strict=True), strict=True)}


def available_providers() -> tuple[str, ...]:
    """ONNX Runtime's execution providers with a device and libraries on this machine, fastest first.

    ONNX Runtime itself lists those it was compiled with, and falls back to the CPU without an error.
    """
    if not torch.cuda.is_available():
        return (_CPU,)
    compiled = onnxruntime.get_available_providers()
    wanted = [_TENSORRT] if _has_library(_TENSORRT_LIBRARY) else []
    return (*(name for name in (*wanted, _CUDA) if name in compiled), _CPU)


def _open_session(
    model: Path, device: Device, providers: list[tuple[str, dict[str, str]]], *, fused: bool
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    # Spinning threads take the processor from other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[*providers, _CPU])
    except Exception as error:  # its exception classes are not public
        reason = first_line(error)
        raise CheckpointError(f"{model}: ONNX Runtime cannot open it ({reason}); export the model again") from error
    if device == "cuda" and session.get_providers()[0] == _CPU:
        raise ConfigError(
            "--device cuda: ONNX Runtime cannot use CUDA here (no GPU, or CUDA and cuDNN libraries are missing); use "
            "cpu, or see `maag doctor`"
        )
    return session


def _providers(
    model: Path, spec: TensorSpec, batch_size: int, precision: Precision
) -> list[tuple[str, dict[str, str]]]:
    """Providers that can run the graph on the GPU here, fastest first, with their options."""
    available = available_providers()
    # Without TF32, as the reference of parity: its 10-bit mantissa would be the largest difference.
    options = {_CUDA: {"use_tf32": "0"}}
    # The TensorRT provider cannot turn TF32 off, and with dynamic sizes it would rebuild its engine again and again.
    if _TENSORRT in available and precision != "fp32" and not has_dynamic_size(spec):
        sides = "x".join(map(str, spec.shape[1:]))
        options[_TENSORRT] = {
            f"trt_{precision}_enable": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(require_writable_directory(_engines_of(model, batch_size))),
            "trt_profile_min_shapes": f"{spec.name}:1x{sides}",
            "trt_profile_opt_shapes": f"{spec.name}:{batch_size}x{sides}",
            "trt_profile_max_shapes": f"{spec.name}:{batch_size}x{sides}",
        }
    return [(name, options[name]) for name in available if name in options]


def _engines_of(model: Path, batch_size: int) -> Path:
    """Cache folder of ONNX Runtime's TensorRT engines for this model only.

    ONNX Runtime names engines by file name, inputs and nodes, which models of one architecture share: in a common
    folder it would run the weights of whichever model was opened first.
    """
    return default_cache_root() / "engines" / "onnxruntime" / f"{sha256_of(model)}-{batch_size}"


@cache
def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
