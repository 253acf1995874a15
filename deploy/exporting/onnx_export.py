"""Export a trained segmentor to an artefact: convert, check, measure parity, and write it atomically."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from deploy.artifact.engine import Engine, Precision, engine_file, profile_of
from deploy.artifact.geometry import describe_geometry
from deploy.artifact.manifest import (
    MODEL,
    Manifest,
    Parity,
    Source,
    labelled_classes,
    sha256_of,
    write_manifest,
)
from deploy.artifact.tensors import gate_levels, input_spec, output_specs
from deploy.exporting.activations import largest_activation, require_room_in_fp16
from deploy.exporting.artifact_folder import building_artifact
from deploy.exporting.companions import write_companions
from deploy.exporting.graph import OPSET, onnx_from_segmentor
from deploy.exporting.precision import to_fp16, to_int8
from deploy.exporting.reference import Reference
from deploy.runners.onnx_runner import OnnxRunner
from deploy.runners.parity import compare
from deploy.runners.seeded_inputs import seeded_inputs
from deploy.runners.trt_build import build_engine
from deploy.runners.trt_presence import TensorRT
from deploy.runners.trt_runner import TrtRunner
from maag import __version__
from maag.config import codec
from maag.config.schema import Config
from maag.errors import ExportError
from maag.storage import storage_errors

_VERSIONS_OF = ("torch", "onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOrder:
    """A TensorRT engine to build."""

    tensorrt: TensorRT
    timing_caches: Path | None = None
    """A folder for TensorRT's kernel timings on this GPU."""


class _Written(NamedTuple):
    parity: tuple[Parity, ...]
    largest_activation: float | None
    engine: Engine | None


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
    gates: bool = False,
    dynamic_size: bool = False,
    engine: EngineOrder | None = None,
    graph: onnx.ModelProto | None = None,
) -> Manifest:
    """Export `segmentor` to the folder `out`, atomically.

    Args:
        segmentor: the trained module; its output has `logits` and `gate_maps`. Its weights, device and mode are not
            changed.
        config: what it was trained with; goes into the manifest.
        out: the artefact's folder; an older artefact is replaced if the folder holds nothing else.
        source: where the weights came from.
        samples: real slices (N, C, H, W) float32, prepared as in training, by name; parity is measured on them too.
        precision: of the graph.
        calibration: representative (N, C, H, W) float32 slices, for int8.
        fall_back: export fp32 instead of raising if the requested precision differs too much from PyTorch.
        gates: add an output for each attention gate.
        dynamic_size: accept images of any height and width that are multiples of 16.
        engine: also build a TensorRT engine, and measure its parity.
        graph: what `onnx_from_segmentor` returned for the same arguments, to save the seconds that converting takes.

    Raises:
        ExportError: the segmentor cannot be exported, or the export does not agree with it.
        StorageError: `out` cannot be written, or holds something else.
    """
    if precision == "int8" and calibration is None:
        raise ExportError("int8 needs slices for calibration; give the data set's folder with --data")
    with building_artifact(out) as folder:
        model = graph or onnx_from_segmentor(segmentor, config, gates=gates, dynamic_size=dynamic_size)
        outputs = output_specs(config, gates=gates, dynamic_size=dynamic_size)
        reference = Reference(segmentor, outputs, gate_levels(config, gates=gates))
        inputs = {**seeded_inputs(config.data, dynamic_size=dynamic_size), **(samples or {})}
        writer = _Writer(folder, model, reference, inputs, config, dynamic_size, engine)
        fell_back_from: Precision | None = None
        try:
            written = writer.write(precision, calibration)
        except ExportError:
            if not fall_back or precision == "fp32":
                raise
            fell_back_from, precision = precision, "fp32"
            written = writer.write(precision)
        files = [MODEL] if written.engine is None else [MODEL, written.engine.file]
        manifest = Manifest(
            precision=precision,
            fell_back_from=fell_back_from,
            opset=OPSET,
            inputs=(input_spec(config, dynamic_size=dynamic_size),),
            outputs=outputs,
            classes=labelled_classes(config),
            geometry=describe_geometry(config.data),
            config=config,
            config_digest=codec.digest(config),
            source=source,
            parity=written.parity,
            largest_activation=written.largest_activation,
            engine=written.engine,
            files={name: sha256_of(folder / name) for name in files},
            versions={"maag": __version__, **{name: version(name) for name in _VERSIONS_OF}},
        )
        write_manifest(folder, manifest)
        write_companions(folder, manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the graph in a given precision, and its engine if ordered, and measures parity of both."""

    folder: Path
    model: onnx.ModelProto
    reference: Reference
    inputs: Mapping[str, NDArray[np.float32]]
    config: Config
    dynamic_size: bool
    order: EngineOrder | None

    def write(self, precision: Precision, calibration: NDArray[np.float32] | None = None) -> _Written:
        """Write and measure. Raises ExportError if the result differs too much from the reference."""
        largest = None
        if precision == "fp16":
            largest = largest_activation(self.model, self.inputs.values())
            require_room_in_fp16(largest)
        model = self._reduced(precision, calibration)
        with storage_errors(self.folder / MODEL):
            (self.folder / MODEL).write_bytes(model.SerializeToString())
        spec = input_spec(self.config, dynamic_size=self.dynamic_size)
        candidate = OnnxRunner(self.folder / MODEL, spec, "cpu", precision=precision)
        parity = compare(self.reference, candidate, self.inputs, precision)
        if self.order is None:
            return _Written(parity, largest, None)
        engine, of_engine = self._build(precision, self.order)
        return _Written((*parity, *of_engine), largest, engine)

    def _reduced(self, precision: Precision, calibration: NDArray[np.float32] | None) -> onnx.ModelProto:
        if precision == "fp16":
            return to_fp16(self.model)
        if precision == "int8":
            assert calibration is not None
            return to_int8(self.model, calibration, self.config.data.num_classes)
        return self.model

    def _build(self, precision: Precision, order: EngineOrder) -> tuple[Engine, tuple[Parity, ...]]:
        tensorrt = order.tensorrt
        spec = input_spec(self.config, dynamic_size=self.dynamic_size)
        profile = profile_of(spec, self.config.data.size_px)
        plan = build_engine(self.folder / MODEL, precision, profile, tensorrt, order.timing_caches)
        parity = compare(self.reference, TrtRunner(plan, spec, tensorrt), self.inputs, precision)
        path = self.folder / engine_file(precision, tensorrt.environment)
        with storage_errors(path):
            path.write_bytes(plan)
        engine = Engine(
            file=path.name,
            sha256=sha256_of(path),
            environment=tensorrt.environment,
            onnx_sha256=sha256_of(self.folder / MODEL),
            precision=precision,
            profile=profile,
        )
        return engine, parity
