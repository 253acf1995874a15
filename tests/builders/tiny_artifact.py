"""A tiny hand-written exported model: softmax over an image and its negative, labels, one gate map."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from deploy.artifact.engine import Engine
from deploy.artifact.geometry import describe_geometry
from deploy.artifact.manifest import MODEL, Manifest, Source, labelled_classes, sha256_of, write_manifest
from deploy.artifact.tensors import input_spec, output_specs
from maag.config import codec
from maag.config.schema import Config

CONFIG = codec.override(
    Config(), {"data.classes": ["background", "bright"], "data.size_px": [16, 32], "gates.levels": [0]}
)


def write_tiny_graph(path: Path, *, dynamic_size: bool = False) -> Path:
    """Write a graph whose foreground probability is the sigmoid of twice the intensity."""
    floats, batch = TensorProto.FLOAT, "batch"
    height, width = ("height", "width") if dynamic_size else CONFIG.data.size_px
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["images"], ["negative"]),
            helper.make_node("Concat", ["negative", "images"], ["logits"], axis=1),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["largest"], axis=1, keepdims=0),
            helper.make_node("Cast", ["largest"], ["numbers"], to=floats),
            helper.make_node("Cast", ["numbers"], ["labels"], to=TensorProto.UINT8),
            helper.make_node("Sigmoid", ["images"], ["gates_0"]),
        ],
        "by-hand",
        [helper.make_tensor_value_info("images", floats, [batch, 1, height, width])],
        [
            helper.make_tensor_value_info("probabilities", floats, [batch, 2, height, width]),
            helper.make_tensor_value_info("labels", TensorProto.UINT8, [batch, height, width]),
            helper.make_tensor_value_info("gates_0", floats, [batch, 1, height, width]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def tiny_manifest(folder: Path, *, dynamic_size: bool = False, engine: Engine | None = None) -> Manifest:
    """The manifest of the artefact in `folder`."""
    files = [MODEL] if engine is None else [MODEL, engine.file]
    return Manifest(
        opset=20,
        inputs=(input_spec(CONFIG, dynamic_size=dynamic_size),),
        outputs=output_specs(CONFIG, gates=True, dynamic_size=dynamic_size),
        classes=labelled_classes(CONFIG),
        geometry=describe_geometry(CONFIG.data),
        config=CONFIG,
        config_digest=codec.digest(CONFIG),
        source=Source(checkpoint="best.safetensors", sha256="00"),
        parity=(),
        engine=engine,
        files={name: sha256_of(folder / name) for name in files},
        versions={},
    )


def write_tiny_artifact(folder: Path, *, dynamic_size: bool = False) -> Manifest:
    """Write an artefact without an engine."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_graph(folder / MODEL, dynamic_size=dynamic_size)
    manifest = tiny_manifest(folder, dynamic_size=dynamic_size)
    write_manifest(folder, manifest)
    return manifest
