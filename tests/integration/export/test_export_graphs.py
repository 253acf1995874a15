"""Exported graphs in each precision: their operators, their outputs, and their engines on stand-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported_graphs import CONFIG, CONFIGS, ENSEMBLE, SOURCE, graph, segmentor
from fake_cuda import FakeCuda
from onnx import TensorProto
from tensorrt_stand_in import VERSIONS, TensorRTStandIn
from triton_config import parse_pbtxt, triton_tensor

from deploy.artifact.manifest import MODEL, load_manifest
from deploy.exporting.onnx_export import EngineOrder, export
from deploy.exporting.triton import write_repository
from deploy.runners.opening import open_artifact
from deploy.runners.trt_presence import TensorRT
from maag.errors import DataError, ExportError
from maag.inference import TorchRunner, evaluation_mode

pytestmark = pytest.mark.integration

OPERATORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "contracts" / "onnx_operators.json").read_text())[
    "operators"
]
TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT8: "INT8",
    TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8",
}


VARIANTS = [(precision, gates, free) for free in (False, True) for gates in (False, True)
            for precision in ("fp32", "fp16", "int8")]  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "gates", "dynamic_size", "kind"),
    [
        *((*variant, "plain") for variant in VARIANTS),
        *((precision, True, True, "residual") for precision in ("fp32", "fp16", "int8")),
        *((precision, False, True, ENSEMBLE) for precision in ("fp32", "fp16", "int8")),
    ],
)
def test_graphs_contain_only_operators_that_tensorrt_supports(
    precision: str, gates: bool, dynamic_size: bool, kind: str
) -> None:
    model = graph(precision, gates, dynamic_size, kind)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert list(problems(model)) == []


def problems(model: onnx.ModelProto) -> Iterator[str]:
    """Where the graph is outside of the table of TensorRT's parser."""
    unknown = {node.op_type for node in model.graph.node if not OPERATORS.get(node.op_type, {}).get("supported")}
    yield from (f"{operator} is not supported" for operator in unknown)
    if unknown:
        return
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in inferred.initializer}
    types = {value.name: value.type.tensor_type.elem_type
             for value in (*inferred.value_info, *inferred.input, *inferred.output)}  # fmt: skip
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    ends = {value.name for value in (*inferred.input, *inferred.output)}
    for node in inferred.node:
        value = node.input[0]
        if TYPES[types[value]] not in OPERATORS[node.op_type]["dtypes"]:
            yield f"{node.op_type} of {TYPES[types[value]]}"
        for name in (*node.input, *node.output):
            if name and types[name] == TensorProto.UINT8 and name not in ends:
                yield f"{name} is UINT8 inside of the graph"
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        with_axes = ("ReduceMax", "ReduceMean", "ReduceSum", "Slice", "Unsqueeze")
        if node.op_type in with_axes and not set(node.input[1:]) <= set(constants):
            yield f"{node.op_type} {node.name} by numbers that are computed"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and constants[node.input[2]].any():
            yield f"{node.op_type} {node.name} with a zero point"
        if node.op_type == "MaxPool" and (
            len(node.output) > 1 or len(attributes["kernel_shape"]) != 2 or set(attributes.get("dilations", [1])) != {1}
        ):
            yield f"MaxPool {node.name} with indices or dilations"
        from_integers = types[value] not in (TensorProto.FLOAT, TensorProto.FLOAT16)
        if node.op_type == "Cast" and types[node.output[0]] == TensorProto.UINT8 and from_integers:
            yield "a cast to UINT8 from integers"


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (onnx.helper.make_node("MaxUnpool", ["a"], ["b"]), "MaxUnpool is not supported"),
        (onnx.helper.make_node("ReduceSum", ["a", "axes"], ["b"]), "ReduceSum  by numbers that are computed"),
        (onnx.helper.make_node("Cast", ["n"], ["b"], to=TensorProto.UINT8), "a cast to UINT8 from integers"),
    ],
)
def test_operators_unsupported_by_tensorrt_are_detected(node: onnx.NodeProto, problem: str) -> None:
    value = onnx.helper.make_tensor_value_info
    kind = TensorProto.UINT8 if node.op_type == "Cast" else TensorProto.FLOAT
    inputs = [
        value("a", TensorProto.FLOAT, [2]),
        value("axes", TensorProto.INT64, [1]),
        value("n", TensorProto.INT64, [2]),
    ]
    made = onnx.helper.make_graph([node], "bad", inputs, [value("b", kind, None)])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)])
    assert problem in list(problems(model))


def run(model: onnx.ModelProto, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize("encoder", CONFIGS)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-2)])
@pytest.mark.parametrize("shape", [(1, 1, 48, 32), (3, 1, 16, 64)])
def test_graph_gates_match_the_module_for_any_size(
    encoder: str, precision: str, tolerance: float, shape: tuple[int, ...]
) -> None:
    images = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = run(graph(precision, True, True, encoder), images)
    module = segmentor(encoder)
    with evaluation_mode(module), torch.inference_mode():
        expected = module(torch.from_numpy(images))
    assert list(found) == ["probabilities", "labels", "gates_0", "gates_1", "gates_2", "gates_3"]
    for level, classes in expected.gate_maps.items():
        gate = found[f"gates_{level}"]
        assert gate.dtype == np.float32
        assert gate.shape == (shape[0], 1, shape[2] // 2**level, shape[3] // 2**level)
        np.testing.assert_allclose(gate[:, 0], 1 - classes[:, 0].numpy(), atol=tolerance)
        assert gate.min() >= 0
        assert gate.max() <= 1 + 1e-3
    np.testing.assert_allclose(found["probabilities"], expected.logits.softmax(1).numpy(), atol=tolerance)
    np.testing.assert_array_equal(found["labels"], found["probabilities"].argmax(axis=1))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 0.2)])
def test_graph_of_an_ensemble_gives_the_mean_of_its_networks(precision: str, tolerance: float) -> None:
    images = np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype(np.float32)
    found = run(graph(precision, False, True, ENSEMBLE), images)
    each = [TorchRunner(segmentor(encoder))(images) for encoder in CONFIGS]
    assert np.abs(each[0] - each[1]).max() > 2 * tolerance
    np.testing.assert_allclose(found["probabilities"], np.mean(each, axis=0), atol=tolerance)
    np.testing.assert_array_equal(found["labels"], found["probabilities"].argmax(axis=1))


def test_residual_encoder_is_exported_in_int8_and_described_in_the_card(tmp_path: Path) -> None:
    config = CONFIGS["residual"]
    calibration = np.random.default_rng(2).normal(size=(4, 1, 48, 32)).astype(np.float32)
    manifest = export(
        segmentor("residual"), config, tmp_path / "model", SOURCE, precision="int8", calibration=calibration,
        gates=True, dynamic_size=True, graph=graph("fp32", True, True, "residual"),
    )  # fmt: skip
    assert load_manifest(tmp_path / "model").config == config
    assert [row.candidate for row in manifest.parity] == ["onnx-cpu"] * 6
    card = " ".join((tmp_path / "model" / "model_card.md").read_text().split())
    assert "width 4, residual blocks [1, 2, 0, 2] in its encoder, int8; trained with" in card


@pytest.mark.parametrize("version", VERSIONS)
def test_artifact_with_an_engine_is_complete_and_runs(version: str, tmp_path: Path) -> None:
    tensorrt = TensorRT(TensorRTStandIn(version), FakeCuda())
    order = EngineOrder(tensorrt=tensorrt, timing_caches=tmp_path / "cache")
    out = tmp_path / "model"
    manifest = export(
        segmentor("plain"), CONFIG, out, SOURCE, precision="fp16", gates=True, dynamic_size=True, engine=order,
        graph=graph("fp32", True, True, "plain"),
    )  # fmt: skip
    assert load_manifest(out) == manifest
    assert manifest.engine is not None
    assert (out / manifest.engine.file).is_file()
    assert manifest.engine.onnx_sha256 == manifest.files[MODEL]
    assert manifest.engine.environment == tensorrt.environment
    assert manifest.engine.profile.largest == (16, 1, 96, 64)
    inputs = ["noise-1", "noise-2", "noise-5", "noise-2-64x48", "phantoms", "blobs"]
    assert [(row.candidate, row.inputs) for row in manifest.parity] == [
        *(("onnx-cpu", name) for name in inputs), *(("tensorrt", name) for name in inputs)
    ]  # fmt: skip
    assert manifest.largest_activation is not None
    assert 0 < manifest.largest_activation < 1000
    readme, card = (out / "README.md").read_text(), (out / "model_card.md").read_text()
    for text in (readme, card):
        assert "TensorRT's licence forbids its use in medical" in text
    assert f"`{manifest.engine.file}` is a TensorRT engine for NVIDIA Stand-In (compute capability 9.0)" in readme
    assert "| output | `gates_1` | float32 | batch, 1, height/2, width/2 | attention of the gate at level 1" in readme

    opened = open_artifact(out, tensorrt=tensorrt)
    assert opened.reason == "TensorRT: the engine beside the model"
    images = np.random.default_rng(1).normal(size=(3, 1, 64, 48)).astype(np.float32)
    by_onnx = open_artifact(out, "cpu").runner
    np.testing.assert_allclose(opened.runner(images), by_onnx(images), atol=1e-6)
    for runner in (opened.runner, by_onnx):
        with pytest.raises(DataError, match=r"multiples of 16, got .*72"):
            runner(np.zeros((1, 1, 72, 48), np.float32))

    repository = write_repository(out, manifest)
    plan = repository / "segmentor_tensorrt" / "1" / "model.plan"
    assert plan.read_bytes() == (out / manifest.engine.file).read_bytes()
    for name, platform in (("segmentor", "onnxruntime_onnx"), ("segmentor_tensorrt", "tensorrt_plan")):
        config = parse_pbtxt((repository / name / "config.pbtxt").read_text())
        assert (config["name"], config["platform"], config["max_batch_size"]) == (name, platform, 16)
        assert config["input"] == [{"name": "images", "data_type": "TYPE_FP32", "dims": [1, -1, -1]}]
        assert config["output"] == [triton_tensor(spec) for spec in manifest.outputs]
    assert load_manifest(out) == manifest


def test_inaccurate_engine_is_refused_or_falls_back(tmp_path: Path) -> None:
    trt = TensorRTStandIn(VERSIONS[1], fail="fp16 numbers")
    order: dict[str, Any] = {
        "precision": "fp16",
        "engine": EngineOrder(tensorrt=TensorRT(trt, FakeCuda())),
        "graph": graph("fp32", False, False, "plain"),
    }
    with pytest.raises(ExportError, match="tensorrt against torch-cpu on noise-1") as caught:
        export(segmentor("plain"), CONFIG, tmp_path / "refused", SOURCE, **order)
    assert str(caught.value).count("tensorrt differs by") == 5
    assert not (tmp_path / "refused").exists()
    manifest = export(segmentor("plain"), CONFIG, tmp_path / "fp32", SOURCE, **order, fall_back=True)
    assert (manifest.precision, manifest.fell_back_from) == ("fp32", "fp16")
    assert manifest.engine is not None
    assert manifest.engine.precision == "fp32"
    assert [row.candidate for row in manifest.parity] == ["onnx-cpu"] * 5 + ["tensorrt"] * 5
