"""What lower precision saves and costs, and when it is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_graphs import SOURCE, graph

from deploy.artifact.manifest import load_manifest
from deploy.exporting.graph import onnx_from_segmentor
from deploy.exporting.onnx_export import export
from deploy.runners.opening import open_artifact
from maag.config.schema import Config
from maag.errors import ExportError
from maag.models.segmentor import Segmentor

pytestmark = pytest.mark.integration


def test_lower_precision_is_smaller_and_less_accurate(
    config: Config, segmentor: Segmentor, artifact: Path, int8_artifact: Path, tmp_path: Path
) -> None:
    whole = (artifact / "model.onnx").stat().st_size
    half = export(
        segmentor, config, tmp_path / "half", SOURCE, precision="fp16", graph=graph("fp32", False, False, "plain")
    )
    assert half.precision == "fp16"
    assert (tmp_path / "half" / "model.onnx").stat().st_size < 0.75 * whole
    stored = onnx.load(tmp_path / "half" / "model.onnx").graph
    halves = {tensor.name for tensor in stored.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert all(node.input[1] in halves for node in stored.node if node.op_type.startswith("Conv"))
    assert max(row.max_difference for row in half.parity) > 1e-6
    types = {value.name: value.type.tensor_type.elem_type for value in (*stored.input, *stored.output)}
    assert types == {"images": 1, "probabilities": 1, "labels": 2}
    images = np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype(np.float32)
    assert open_artifact(tmp_path / "half", "cpu").runner(images).shape == (3, 4, 48, 32)

    eighth = load_manifest(int8_artifact)
    assert eighth.precision == "int8"
    model = onnx.load(int8_artifact / "model.onnx")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 10
    assert max(row.max_difference for row in eighth.parity) > max(row.max_difference for row in half.parity)
    with pytest.raises(ExportError, match="int8 needs slices for calibration"):
        export(segmentor, config, tmp_path / "none", SOURCE, precision="int8")
    assert not (tmp_path / "none").exists()


def test_insufficient_precision_is_refused_or_falls_back(config: Config, segmentor: Segmentor, tmp_path: Path) -> None:
    wild = copy.deepcopy(segmentor)
    last_norm = wild.decoder[0].second[1]  # type: ignore[index, union-attr]
    with torch.no_grad():  # the same function, by a weight that fp16 cannot hold
        last_norm.weight[0] *= 1e-6
        last_norm.bias[0] *= 1e-6
        wild.classify.weight[:, 0] *= 1e6
    order: dict[str, Any] = {"precision": "fp16", "graph": onnx_from_segmentor(wild, config)}
    with pytest.raises(ExportError, match="exceeds the maximum of fp16, 65504"):
        export(wild, config, tmp_path / "refused", SOURCE, **order)
    assert not (tmp_path / "refused").exists()
    manifest = export(wild, config, tmp_path / "fp32", SOURCE, **order, fall_back=True)
    assert (manifest.precision, manifest.fell_back_from) == ("fp32", "fp16")
    assert load_manifest(tmp_path / "fp32") == manifest
