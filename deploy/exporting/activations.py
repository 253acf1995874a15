"""The largest activation of a network, which decides whether fp16 can represent it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.artifact.tensors import IMAGES
from maag.errors import ExportError

LARGEST_HALF = float(np.finfo(np.float16).max)
NEAR_LARGEST_HALF = 0.5 * LARGEST_HALF
"""Above this, images other than those measured may exceed the maximum."""

_SLICES_AT_ONCE = 8
_ERRORS_ONLY = 3


def largest_activation(model: onnx.ModelProto, images: Iterable[NDArray[np.float32]]) -> float:
    """The largest absolute value of any float32 tensor inside the fp32 graph `model`.

    Args:
        model: as exported.
        images: arrays (N, C, H, W) float32.
    """
    probe = _with_largest_of_each(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return max(
        float(np.max(session.run(names, {IMAGES: some[start : start + _SLICES_AT_ONCE]})))
        for some in images
        for start in range(0, len(some), _SLICES_AT_ONCE)
    )


def require_room_in_fp16(largest: float) -> None:
    """Raise ExportError for activations that overflow in fp16."""
    if not largest < LARGEST_HALF:
        raise ExportError(
            f"the maximum of fp16 is {LARGEST_HALF:g}, but activations reach {largest:g} on the slices measured; "
            "export with --precision fp32"
        )


def _with_largest_of_each(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the largest absolute value of each inner tensor as its outputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    inside = [name for node in graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    del graph.output[:]
    for name in inside:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}_absolute"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}_absolute"], [f"{name}_largest"], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(f"{name}_largest", TensorProto.FLOAT, []))
    return probe
