"""Reduced precision of the exported graph: fp16 by conversion, int8 by quantisation with explicit scales.

Precision is a property of the ONNX file: TensorRT 11 takes types from the graph only, and 10.12 and later can.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from deploy.artifact.tensors import PROBABILITIES
from deploy.exporting.activations import LARGEST_HALF
from maag.errors import ExportError


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in fp16 from the input to the logits; inputs, the final softmax and outputs stay fp32.

    Batch normalisation is folded in fp32 already, so only weights and sums are rounded. The softmax and the sum of the
    gates are fp16 like what they multiply: fp32 would lower the largest difference of a logit from 3.05e-2 to 3.02e-2
    only, on a network trained on phantoms, for eight more casts.

    Raises:
        ExportError: a weight is too large for fp16.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            largest = float(np.abs(values).max(initial=0.0))
            if largest > LARGEST_HALF:
                raise ExportError(
                    f"{tensor.name}: a weight of {largest:g} exceeds the maximum of fp16, {LARGEST_HALF:g}; export "
                    "with --precision fp32"
                )
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    nodes = list(graph.node)
    (images,) = graph.input
    (softmax,) = (node for node in nodes if PROBABILITIES in node.output)
    # Gate maps are fp32 outputs too, and fp16 where used inside.
    gates = [
        output.name
        for output in graph.output
        if output.name != PROBABILITIES and output.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    for node in nodes:
        node.input[:] = [f"{name}_half" if name in (images.name, *gates) else name for name in node.input]
        node.output[:] = [f"{name}_half" if name in gates else name for name in node.output]
    logits = softmax.input[0]
    softmax.input[0] = f"{logits}_float"
    to_half = helper.make_node("Cast", [images.name], [f"{images.name}_half"], to=TensorProto.FLOAT16)
    to_float = helper.make_node("Cast", [logits], [f"{logits}_float"], to=TensorProto.FLOAT)
    place = nodes.index(softmax)
    del graph.node[:], graph.value_info[:]
    from_half = [helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT) for name in gates]
    graph.node.extend([to_half, *nodes[:place], to_float, *nodes[place:], *from_half])
    return onnx.shape_inference.infer_shapes(half, strict_mode=True, data_prop=True)


def to_int8(model: onnx.ModelProto, calibration: NDArray[np.float32], num_classes: int) -> onnx.ModelProto:
    """A copy whose convolutions are quantised symmetrically: activations per tensor, weights per output channel.

    The first convolution, the heads, which compute class scores, and transposed convolutions stay in fp32: int8 would
    cost most and gain least there. Biases stay float, as TensorRT requires.

    Args:
        model: the fp32 graph.
        calibration: representative (N, C, H, W) float32 images, prepared as in training.
        num_classes: identifies the heads.
    """
    (images,) = model.graph.input
    kept = [node.name for node in _convolutions(model) if _is_kept(model, node, images.name, num_classes)]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        # It recommends folding and shape inference, which the exporter has done.
        with _without_warnings():
            quantize_static(
                str(source),
                str(target),
                _Calibration(images.name, calibration),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=kept,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "AddQDQPairToWeight": True,
                    "DedicatedQDQPair": True,
                    "OpTypesToExcludeOutputQuantization": ["Conv"],
                },
            )
        return onnx.load(str(target))


def calibration_slices(
    images: NDArray[np.float32], labels: NDArray[np.uint8], num_classes: int, count: int = 32
) -> NDArray[np.int64]:
    """Indices of up to `count` of the (N, C, H, W) images that cover all classes and the range of intensities.

    Alternates between slices with the largest area of each class, and slices at even steps of mean intensity; `labels`
    are (N, H, W), of masks or scribbles.
    """
    by_class = [np.argsort(-(labels == label).sum(axis=(1, 2)), kind="stable") for label in range(1, num_classes)]
    by_intensity = np.argsort(images.mean(axis=(1, 2, 3)), kind="stable")
    # As many steps as it has turns: of more, the last ones, which are the brightest, would never have theirs.
    steps = min(-(-count // (1 + len(by_class))), len(images))
    even = by_intensity[np.linspace(0, len(images) - 1, steps).round().astype(int)]
    chosen: dict[int, None] = {}
    for place in range(len(images)):
        for order in (even, *by_class):
            if place < len(order) and len(chosen) < count:
                chosen.setdefault(int(order[place]))
    return np.array(sorted(chosen), dtype=np.int64)


@contextmanager
def _without_warnings() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """One image at a time."""

    def __init__(self, name: str, images: NDArray[np.float32]) -> None:
        self._feeds: Iterator[Mapping[str, NDArray[np.float32]]] = ({name: image[None]} for image in images)

    def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
        """See CalibrationDataReader."""
        return next(self._feeds, None)


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _is_kept(model: onnx.ModelProto, node: onnx.NodeProto, images: str, num_classes: int) -> bool:
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    return bool(node.input[0] == images or weight.dims[0] == num_classes)
