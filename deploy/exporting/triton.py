"""Write the exported model as a model repository of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.artifact.engine import profile_of
from deploy.artifact.manifest import MODEL, Manifest
from deploy.artifact.tensors import TensorSpec
from maag.storage import replacing, write_text

REPOSITORY = "triton"
_CONFIG = "config.pbtxt"
_VERSION = "1"
_MODELS = {"segmentor": "model.onnx", "segmentor_tensorrt": "model.plan"}
FILES = tuple(
    f"{REPOSITORY}/{name}/{file}" for name, model in _MODELS.items() for file in (_CONFIG, f"{_VERSION}/{model}")
)
"""All that `write_repository` may write."""
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
_DYNAMIC = -1
_ONNX = "onnxruntime_onnx"
_UNFUSED = "optimization { graph { level: 2 } }\n"
"""Triton's ONNX Runtime backend reads 2 as ORT_DISABLE_ALL: int8 saturates if fused, see `OnnxRunner`."""


def write_repository(folder: Path, manifest: Manifest) -> Path:
    """Write `triton/segmentor/` with `config.pbtxt` and version 1 to the artefact's `folder`, and if there is an
    engine `triton/segmentor_tensorrt/`; serve them with `tritonserver --model-repository=FOLDER/triton`.

    Triton can run an engine only with the TensorRT version that built it.

    Returns:
        The repository. Raises StorageError.
    """
    _write_model(folder, manifest, "segmentor", _ONNX, MODEL)
    if manifest.engine is not None:
        _write_model(folder, manifest, "segmentor_tensorrt", "tensorrt_plan", manifest.engine.file)
    return folder / REPOSITORY


def config_of(manifest: Manifest, name: str, platform: str) -> str:
    """Content of `config.pbtxt`; shapes are without the batch dimension, which Triton adds."""
    inputs = ",\n".join(_tensor(spec) for spec in manifest.inputs)
    outputs = ",\n".join(_tensor(spec) for spec in manifest.outputs)
    # The graph takes any batch size, an engine at most that of its profile.
    max_batch_size = profile_of(manifest.inputs[0], manifest.config.data.size_px).largest[0]
    return (
        f'name: "{name}"\n'
        f'platform: "{platform}"\n'
        f"max_batch_size: {max_batch_size}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{outputs}\n]\n"
        "dynamic_batching { }\n"
        f"{_UNFUSED if manifest.precision == 'int8' and platform == _ONNX else ''}"
    )


def _write_model(folder: Path, manifest: Manifest, name: str, platform: str, source: str) -> None:
    model = folder / REPOSITORY / name
    write_text(model / _CONFIG, config_of(manifest, name, platform))
    with replacing(model / _VERSION / _MODELS[name]) as temporary:
        shutil.copyfile(folder / source, temporary)


def _tensor(spec: TensorSpec) -> str:
    dims = ", ".join(str(_DYNAMIC if isinstance(side, str) else side) for side in spec.shape[1:])
    return f'  {{ name: "{spec.name}" data_type: {_TYPES[spec.dtype]} dims: [ {dims} ] }}'
