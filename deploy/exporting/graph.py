"""Convert a segmentor to its ONNX graph, with all outputs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from deploy.artifact.tensors import IMAGES, TensorSpec, gate_levels, input_spec, output_specs
from maag import __version__
from maag.config import codec
from maag.config.schema import Config
from maag.errors import ExportError, first_line
from maag.inference import evaluation_mode

OPSET = 20


class Exported(nn.Module):
    """A segmentor with the outputs of the exported graph."""

    def __init__(self, segmentor: nn.Module, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.levels = levels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) float32 images to (N, num_classes, H, W) float32 probabilities, (N, H, W) uint8 labels, and the
        attention of the gate at each level, (N, 1, H / 2**level, W / 2**level) float32 in [0, 1].
        """
        output = self.segmentor(images)
        probabilities = output.logits.softmax(dim=1)
        # Via float32, as TensorRT casts to uint8 only from floating point.
        labels = probabilities.argmax(dim=1).to(torch.float32).to(torch.uint8)
        gates = (output.gate_maps[level][:, 1:].sum(dim=1, keepdim=True) for level in self.levels)
        return probabilities, labels, *gates


def onnx_from_segmentor(
    segmentor: nn.Module, config: Config, *, gates: bool = False, dynamic_size: bool = False
) -> onnx.ModelProto:
    """The fp32 graph of `segmentor`, batch normalisation folded, with a dynamic batch size.

    Args:
        segmentor: its weights, device and mode are not changed.
        config: what it was trained with.
        gates: add an output for each gate.
        dynamic_size: accept any height and width that are multiples of 16, not only those of the training grid.

    Raises:
        ExportError: it cannot be exported.
    """
    spec = input_spec(config, dynamic_size=dynamic_size)
    outputs = output_specs(config, gates=gates, dynamic_size=dynamic_size)
    example = torch.zeros((2, config.data.channels, *config.data.size_px), device=device_of(segmentor))
    levels = gate_levels(config, gates=gates)
    with evaluation_mode(segmentor), _quiet_exporter():
        try:
            program = torch.onnx.export(
                Exported(segmentor, levels).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[IMAGES],
                output_names=[output.name for output in outputs],
                dynamic_shapes={IMAGES: {axis: name for axis, name in enumerate(spec.shape) if isinstance(name, str)}},
                verbose=False,
            )
        except Exception as error:  # the exporter's passes may raise anything
            raise ExportError(f"PyTorch cannot export the segmentor: {first_line(error)}") from error
    if program is None:
        raise ExportError("PyTorch returned no graph for the segmentor; use the version in constraints.txt")
    model: onnx.ModelProto = program.model_proto
    _strip_metadata(model)
    _name_dynamic_sizes(model, (spec, *outputs))
    onnx.helper.set_model_props(model, {"maag": __version__, "config_digest": codec.digest(config)})
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported graph is not valid ONNX: {first_line(error)}") from error
    return model


def device_of(module: nn.Module) -> torch.device:
    """Where the module's weights are."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on itself and missing packages; parity is measured afterwards."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip_metadata(model: onnx.ModelProto) -> None:
    """Remove source paths and lines of the exporting machine, which the exporter adds to each node."""
    graph = model.graph
    for parts in (graph.node, graph.value_info, graph.initializer, graph.input, graph.output, [graph]):
        for part in parts:
            del part.metadata_props[:]
            part.doc_string = ""


def _name_dynamic_sizes(model: onnx.ModelProto, specs: tuple[TensorSpec, ...]) -> None:
    """Give dynamic dimensions the names in the manifest; the exporter's names for outputs are formulas."""
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for spec in specs:
        dims = values[spec.name].type.tensor_type.shape.dim
        for dim, size in zip(dims, spec.shape, strict=True):
            if isinstance(size, str):
                dim.dim_param = size
