"""What lower precision saves and costs, and when it is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy.artifact.manifest import Source, load_manifest
from deploy.exporting.onnx_export import export
from deploy.runners.opening import open_artifact
from maag.config.schema import Config
from maag.errors import ExportError
from maag.models.segmentor import Segmentor

pytestmark = pytest.mark.integration


def test_lower_precision_is_smaller_and_less_accurate(
    config: Config, segmentor: Segmentor, artifact: Path, int8_artifact: Path, tmp_path: Path
) -> None:
    source = Source(checkpoint="best.safetensors", sha256="00")
    whole = (artifact / "model.onnx").stat().st_size
    half = export(segmentor, config, tmp_path / "half", source, precision="fp16")
    assert half.precision == "fp16"
    assert (tmp_path / "half" / "model.onnx").stat().st_size < 0.75 * whole
    graph = onnx.load(tmp_path / "half" / "model.onnx").graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert all(node.input[1] in halves for node in graph.node if node.op_type.startswith("Conv"))
    assert max(row.max_difference for row in half.parity) > 1e-6
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {"images": 1, "probabilities": 1, "labels": 2}
    images = np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype(np.float32)
    assert open_artifact(tmp_path / "half", "cpu").runner(images).shape == (3, 4, 48, 32)

    eighth = load_manifest(int8_artifact)
    assert eighth.precision == "int8"
    model = onnx.load(int8_artifact / "model.onnx")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 10
    assert max(row.max_difference for row in eighth.parity) > max(row.max_difference for row in half.parity)
    with pytest.raises(ExportError, match="int8 needs slices for calibration"):
        export(segmentor, config, tmp_path / "none", source, precision="int8")
    assert not (tmp_path / "none").exists()


def test_insufficient_precision_is_refused_or_falls_back(config: Config, segmentor: Segmentor, tmp_path: Path) -> None:
    wild = copy.deepcopy(segmentor)
    last_norm = wild.decoder[0].second[1]  # type: ignore[index, union-attr]
    with torch.no_grad():  # the same function, by a weight that fp16 cannot hold
        last_norm.weight[0] *= 1e-6
        last_norm.bias[0] *= 1e-6
        wild.classify.weight[:, 0] *= 1e6
    source = Source(checkpoint="best.safetensors", sha256="00")
    with pytest.raises(ExportError, match="exceeds the maximum of fp16, 65504"):
        export(wild, config, tmp_path / "refused", source, precision="fp16")
    assert not (tmp_path / "refused").exists()
    manifest = export(wild, config, tmp_path / "fp32", source, precision="fp16", fall_back=True)
    assert (manifest.precision, manifest.fell_back_from) == ("fp32", "fp16")
    assert load_manifest(tmp_path / "fp32") == manifest
