"""From a trained segmentor to an artefact: the very module, exported, checked and measured."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.artifact import (
    MODEL,
    Manifest,
    Parity,
    Precision,
    Source,
    building_artifact,
    input_spec,
    output_specs,
    sha256_of,
    write_manifest,
)
from deploy.companions import write_companions
from deploy.parity import compare, seeded_inputs
from deploy.precision import to_fp16, to_int8
from deploy.runners import OnnxRunner
from maag import __version__
from maag.config import codec
from maag.config.schema import Config
from maag.errors import ExportError
from maag.inference import TorchRunner, evaluation_mode
from maag.storage import storage_errors

OPSET = 20
_VERSIONS_OF = ("torch", "onnx", "onnxscript")


class _Exported(nn.Module):
    """What leaves the graph, beside what the segmentor gives."""

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 images to (N, num_classes, H, W) float32 probabilities and (N, H, W) uint8 labels."""
        probabilities = self.segmentor(images).logits.softmax(dim=1)
        # By way of float32, as TensorRT casts to uint8 only from floating point.
        return probabilities, probabilities.argmax(dim=1).to(torch.float32).to(torch.uint8)


def export(
    segmentor: nn.Module,
    config: Config,
    out: Path,
    source: Source,
    samples: Mapping[str, NDArray[np.float32]] | None = None,
    *,
    precision: Precision = "fp32",
    calibration: NDArray[np.float32] | None = None,
    fall_back: bool = False,
) -> Manifest:
    """Export `segmentor` to the folder `out`, whole or not at all.

    Args:
        segmentor: the trained module; its output has `logits`. Its weights, device and mode are left as they are.
        config: what it was trained with; goes into the manifest.
        out: the artefact's folder; an older artefact there is replaced.
        source: where the weights came from.
        samples: real slices (N, C, H, W) float32, prepared as in training, by name; parity is measured on them too.
        precision: of the graph.
        calibration: (N, C, H, W) float32 slices that show what occurs, for int8.
        fall_back: export fp32 where the precision asked for is too far from PyTorch, instead of an error.

    Raises:
        ExportError: the segmentor cannot be exported, or the export does not agree with it.
        StorageError: `out` cannot be written, or holds something else.
    """
    with building_artifact(out) as folder:
        model = _onnx_from_segmentor(segmentor, config)
        reference = TorchRunner(segmentor, _device_of(segmentor))
        inputs = {**seeded_inputs(config.data), **(samples or {})}
        fell_back_from: Precision | None = None
        try:
            parity = _write_and_compare(folder, _reduced(model, precision, calibration, config), reference, inputs,
                                        config, precision)  # fmt: skip
        except ExportError:
            if not fall_back or precision == "fp32":
                raise
            fell_back_from, precision = precision, "fp32"
            parity = _write_and_compare(folder, model, reference, inputs, config, precision)
        manifest = Manifest(
            precision=precision,
            fell_back_from=fell_back_from,
            opset=OPSET,
            inputs=(input_spec(config),),
            outputs=output_specs(config),
            config=config,
            config_digest=codec.digest(config),
            source=source,
            parity=parity,
            files={MODEL: sha256_of(folder / MODEL)},
            versions={"maag": __version__, **{name: version(name) for name in _VERSIONS_OF}},
        )
        write_manifest(folder, manifest)
        write_companions(folder, manifest)
    return manifest


def _reduced(
    model: onnx.ModelProto, precision: Precision, calibration: NDArray[np.float32] | None, config: Config
) -> onnx.ModelProto:
    if precision == "fp16":
        return to_fp16(model)
    if precision == "int8":
        if calibration is None:
            raise ExportError("int8 needs slices to calibrate with; say where the data set is with --data")
        return to_int8(model, calibration, config.data.num_classes)
    return model


def _write_and_compare(
    folder: Path,
    model: onnx.ModelProto,
    reference: TorchRunner,
    inputs: Mapping[str, NDArray[np.float32]],
    config: Config,
    precision: Precision,
) -> tuple[Parity, ...]:
    with storage_errors(folder / MODEL):
        (folder / MODEL).write_bytes(model.SerializeToString())
    candidate = OnnxRunner(folder / MODEL, input_spec(config), "cpu", exact=precision == "int8")
    return compare(reference, candidate, inputs, precision)


def _onnx_from_segmentor(segmentor: nn.Module, config: Config) -> onnx.ModelProto:
    spec = input_spec(config)
    example = torch.zeros((2, config.data.channels, *config.data.size_px), device=_device_of(segmentor))
    with evaluation_mode(segmentor), _quiet_exporter():
        try:
            program = torch.onnx.export(
                _Exported(segmentor).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[spec.name],
                output_names=[output.name for output in output_specs(config)],
                dynamic_shapes={spec.name: {0: str(spec.shape[0])}},
                verbose=False,
            )
        except Exception as error:  # Whatever an exporter of tens of passes may raise.
            raise ExportError(f"PyTorch cannot export the segmentor: {str(error).splitlines()[0]}") from error
    if program is None:
        raise ExportError("PyTorch gave no graph for the segmentor; is its version the one in constraints.txt?")
    model: onnx.ModelProto = program.model_proto
    _strip_metadata(model)
    onnx.helper.set_model_props(model, {"maag": __version__, "config_digest": codec.digest(config)})
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    return model


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


def _device_of(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
