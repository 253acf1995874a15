"""The exported model as a model repository of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.artifact import MODEL, Manifest, TensorSpec
from maag.storage import replacing, write_text

REPOSITORY = "triton"
MAX_BATCH = 64
_NAME = "segmentor"
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}


def write_repository(folder: Path, manifest: Manifest) -> Path:
    """Write `triton/segmentor/` with `config.pbtxt` and version 1 in the artefact's `folder`; serve it with
    `tritonserver --model-repository=FOLDER/triton`.

    Returns:
        The repository. Raises StorageError.
    """
    model = folder / REPOSITORY / _NAME
    write_text(model / "config.pbtxt", config_of(manifest))
    with replacing(model / "1" / MODEL) as temporary:
        shutil.copyfile(folder / MODEL, temporary)
    return folder / REPOSITORY


def config_of(manifest: Manifest) -> str:
    """Triton's `config.pbtxt`; the batch, which Triton counts itself, is left out of the shapes."""
    inputs = ",\n".join(_tensor(spec) for spec in manifest.inputs)
    outputs = ",\n".join(_tensor(spec) for spec in manifest.outputs)
    return (
        f'name: "{_NAME}"\n'
        'platform: "onnxruntime_onnx"\n'
        f"max_batch_size: {MAX_BATCH}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{outputs}\n]\n"
        "dynamic_batching { }\n"
    )


def _tensor(spec: TensorSpec) -> str:
    dims = ", ".join(str(side) for side in spec.shape[1:])
    return f'  {{ name: "{spec.name}" data_type: {_TYPES[spec.dtype]} dims: [ {dims} ] }}'
