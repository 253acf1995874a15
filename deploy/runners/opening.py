"""Open exported models: choose a backend, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch

from deploy.artifact.manifest import MODEL, Manifest, load_manifest
from deploy.runners.engine_cache import find_engine
from deploy.runners.onnx_runner import Device, OnnxRunner
from deploy.runners.trt_presence import TensorRT, look_for_tensorrt, open_tensorrt
from maag.errors import CheckpointError, ConfigError, ExportError
from maag.inference import Runner

Backend = Literal["auto", "tensorrt", "onnx"]

_PLACES = {"onnx-cpu": "the CPU", "onnx-cuda": "the GPU", "onnx-tensorrt": "the GPU, with its own TensorRT"}


class OpenArtifact(NamedTuple):
    """An exported model, ready to run."""

    runner: Runner
    manifest: Manifest
    digest: str
    """SHA-256 of `model.onnx`, hexadecimal."""
    reason: str
    """What runs it and why, as a line for people."""


def open_artifact(
    folder: Path,
    device: Device = "auto",
    batch_size: int = 16,
    backend: Backend = "auto",
    tensorrt: TensorRT | None = None,
) -> OpenArtifact:
    """Open the artefact in `folder` after checking its files against its manifest.

    Args:
        folder: the artefact.
        device: auto uses the GPU if there is one.
        batch_size: slices per batch.
        backend: auto uses TensorRT if the artefact has an engine and this machine can run one, else ONNX Runtime.
        tensorrt: runs engines; found on this machine by default.

    Raises:
        MissingDataError: `folder` holds no artefact.
        CheckpointError: the artefact is damaged.
        ConfigError: the requested device or backend cannot be used here.
    """
    manifest = load_manifest(folder)
    if backend == "tensorrt" and device == "cpu":
        raise ConfigError("--backend tensorrt needs a GPU, but --device is cpu; leave one of them out")
    why_not = None if backend == "tensorrt" else _why_no_engine(manifest, device, backend, tensorrt)
    if why_not is None:
        try:
            found = find_engine(folder, manifest, tensorrt or open_tensorrt(), batch_size)
            return OpenArtifact(found.runner, manifest, manifest.files[MODEL], f"TensorRT: {found.reason}")
        except (ExportError, CheckpointError) as error:
            if backend == "tensorrt":
                raise ConfigError(f"--backend tensorrt cannot be used: {error}") from error
            why_not = f"no engine can be used, {error}"
    runner = OnnxRunner(folder / MODEL, manifest.inputs[0], device, batch_size, precision=manifest.precision)
    if runner.name == "onnx-cpu" and device != "cpu" and torch.cuda.is_available():
        why_not = "it cannot use the GPU, as CUDA or cuDNN libraries are missing; see `maag doctor`"
    reason = f"ONNX Runtime on {_PLACES[runner.name]}: {why_not}"
    return OpenArtifact(runner, manifest, manifest.files[MODEL], reason)


def _why_no_engine(manifest: Manifest, device: Device, backend: Backend, tensorrt: TensorRT | None) -> str | None:
    """Why `auto` does not use an engine; None if it does."""
    if device == "cpu":
        return "--device is cpu"
    if tensorrt is None and not torch.cuda.is_available():
        return "no GPU found"
    if backend == "onnx":
        return "--backend is onnx"
    if manifest.engine is None:
        return "the model has no TensorRT engine; `maag export --trt` builds one"
    if tensorrt is None and (presence := look_for_tensorrt()).missing:
        return presence.sentence
    return None
