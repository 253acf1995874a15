"""From a segmentor to its ONNX graph: the very module, with what leaves it beside the logits."""

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
    """A segmentor as it is exported: what leaves the graph, beside what the segmentor gives."""

    def __init__(self, segmentor: nn.Module, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.levels = levels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) float32 images to (N, num_classes, H, W) float32 probabilities, (N, H, W) uint8 labels, and for
        each level (N, 1, H / 2**level, W / 2**level) float32 in [0, 1]: the attention of its gate.
        """
        output = self.segmentor(images)
        probabilities = output.logits.softmax(dim=1)
        # By way of float32, as TensorRT casts to uint8 only from floating point.
        labels = probabilities.argmax(dim=1).to(torch.float32).to(torch.uint8)
        gates = (output.gate_maps[level][:, 1:].sum(dim=1, keepdim=True) for level in self.levels)
        return probabilities, labels, *gates


def onnx_from_segmentor(
    segmentor: nn.Module, config: Config, *, gates: bool = False, dynamic_size: bool = False
) -> onnx.ModelProto:
    """The fp32 graph of `segmentor`, batch normalisation folded, for any number of images.

    Args:
        segmentor: its weights, device and mode are left as they are.
        config: what it was trained with.
        gates: with an output for each gate.
        dynamic_size: for any height and width that are multiples of 16, else for the training grid's alone.

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
        except Exception as error:  # Whatever an exporter of tens of passes may raise.
            raise ExportError(f"PyTorch cannot export the segmentor: {first_line(error)}") from error
    if program is None:
        raise ExportError("PyTorch gave no graph for the segmentor; is its version the one in constraints.txt?")
    model: onnx.ModelProto = program.model_proto
    _strip_metadata(model)
    _name_free_sizes(model, (spec, *outputs))
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
    """Without the exporter's remarks about itself and absent packages; what counts is measured after it."""
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
    """Remove what the exporter notes at each node: paths and lines of the source on the machine that exported."""
    graph = model.graph
    for parts in (graph.node, graph.value_info, graph.initializer, graph.input, graph.output, [graph]):
        for part in parts:
            del part.metadata_props[:]
            part.doc_string = ""


def _name_free_sizes(model: onnx.ModelProto, specs: tuple[TensorSpec, ...]) -> None:
    """Call them as the manifest does; the exporter's own names for those of outputs are formulas."""
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for spec in specs:
        dims = values[spec.name].type.tensor_type.shape.dim
        for dim, size in zip(dims, spec.shape, strict=True):
            if isinstance(size, str):
                dim.dim_param = size
