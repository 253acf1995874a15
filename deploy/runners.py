"""Exported models, ready to run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from deploy.artifact import MODEL, PROBABILITIES, Manifest, TensorSpec, load_manifest
from maag.errors import CheckpointError, ConfigError, DataError

Device = Literal["auto", "cpu", "cuda"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_ERRORS_ONLY = 3
_log = logging.getLogger(__name__)


class OnnxRunner:
    """A `model.onnx` on ONNX Runtime.

    Args:
        model: the file.
        spec: its input, as the manifest has it.
        device: auto takes CUDA where there is one and ONNX Runtime can use it.
        batch_size: slices at once.
        exact: without ONNX Runtime's fusions, of which those for int8 saturate on CPUs without VNNI.

    Raises:
        CheckpointError: the file is not a model that ONNX Runtime can open.
        ConfigError: device is cuda, and ONNX Runtime cannot use one here.
    """

    def __init__(
        self, model: Path, spec: TensorSpec, device: Device = "auto", batch_size: int = 16, *, exact: bool = False
    ) -> None:
        self._session = _open_session(model, device, exact=exact)
        self._spec = spec
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        """`onnx-cpu` or `onnx-cuda`: what the session really runs on."""
        return "onnx-cuda" if self._session.get_providers()[0] == _CUDA else "onnx-cpu"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) float32 of normalised images (N, C, H, W) float32.

        Raises:
            DataError: C, H or W are not those of the manifest.
        """
        expected = self._spec.shape[1:]
        if images.shape[1:] != expected:
            raise DataError(
                f"the exported model takes images of (channels, height, width) {expected}, got {images.shape[1:]}; "
                "prepare them with the data settings in its manifest"
            )
        parts = [
            self._session.run([PROBABILITIES], {self._spec.name: images[start : start + self._batch_size]})[0]
            for start in range(0, len(images), self._batch_size)
        ]
        return np.concatenate(parts)


class OpenArtifact(NamedTuple):
    """An exported model, ready to run."""

    runner: OnnxRunner
    manifest: Manifest
    digest: str
    """SHA-256 of `model.onnx`, hexadecimal."""


def open_artifact(folder: Path, device: Device = "auto", batch_size: int = 16) -> OpenArtifact:
    """Open the artefact in `folder` after checking its files against its manifest.

    Raises:
        MissingDataError: `folder` holds no artefact.
        CheckpointError: the artefact is damaged.
        ConfigError: device is cuda, and ONNX Runtime cannot use one here.
    """
    manifest = load_manifest(folder)
    exact = manifest.precision == "int8"
    runner = OnnxRunner(folder / MODEL, manifest.inputs[0], device, batch_size, exact=exact)
    return OpenArtifact(runner, manifest, manifest.files[MODEL])


def available_providers() -> tuple[str, ...]:
    """ONNX Runtime's execution providers that this machine has a device for, the fastest first.

    ONNX Runtime itself lists what it was compiled with, and falls back to the CPU without an error.
    """
    has_cuda = torch.cuda.is_available() and _CUDA in onnxruntime.get_available_providers()
    return (_CUDA, _CPU) if has_cuda else (_CPU,)


def _open_session(model: Path, device: Device, *, exact: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait busily take the processor from whatever else runs on it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without TF32, as the reference in parity: its ten bits of mantissa would be the largest difference.
    providers = [(_CUDA, {"use_tf32": "0"})] if device != "cpu" and _CUDA in available_providers() else []
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[*providers, _CPU])
    except Exception as error:  # Its exception classes are not public.
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{model}: ONNX Runtime cannot open it ({reason}); export the model again") from error
    if session.get_providers()[0] != _CUDA:
        if device == "cuda":
            raise ConfigError(
                "device: ONNX Runtime cannot use CUDA here (no GPU, or its CUDA and cuDNN libraries are missing); "
                "use cpu, or see `maag doctor`"
            )
        if providers:
            _log.warning("there is a GPU, but ONNX Runtime cannot use it and runs on the CPU; see `maag doctor`")
    return session
