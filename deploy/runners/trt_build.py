"""From an ONNX file to a TensorRT engine: one flow for TensorRT 10.12 and later, and 11.

Every type comes from the graph (strong typing), so nothing here depends on the precision but TF32, which would take
thirteen bits from fp32.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from filelock import FileLock

from deploy.artifact.engine import Precision, Profile
from deploy.artifact.tensors import IMAGES
from deploy.runners.trt_presence import TensorRT
from maag.errors import ExportError
from maag.storage import replacing, storage_errors

_WORKSPACE_BYTES = 4 << 30
_log = logging.getLogger(__name__)


def build_engine(
    model: Path, precision: Precision, profile: Profile, tensorrt: TensorRT, timing_caches: Path | None = None
) -> bytes:
    """The serialized engine of the ONNX file `model` for the device of `tensorrt`; it takes from seconds to minutes.

    Args:
        model: a graph without external data.
        precision: the graph's.
        profile: the input shapes that the engine must take.
        tensorrt: with what to build.
        timing_caches: a folder that keeps how fast TensorRT found its kernels here, so that the next build is faster.

    Raises:
        ExportError: TensorRT does not start, does not read the graph or cannot build it; with all that it says.
        StorageError: a file cannot be read or written.
    """
    trt = tensorrt.trt
    with storage_errors(model, "read"):
        graph = model.read_bytes()
    said = messages(trt)
    try:
        builder = trt.Builder(said)
    except TypeError as error:  # What pybind makes of a constructor that returns nothing.
        raise ExportError(f"TensorRT does not start here ({error}){said.text()}") from error
    # The member's value is 1 in TensorRT 10 and 0 in 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, said)
    if not parser.parse(graph):
        raise ExportError(f"TensorRT does not read {model.name}:{_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    # For inspectors: which types the layers really have.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    shapes.set_shape(IMAGES, profile.smallest, profile.tuned, profile.largest)
    if config.add_optimization_profile(shapes) < 0:
        raise ExportError(f"TensorRT does not take the profile {profile.name}{said.text()}")
    timings = timing_caches / f"timings-{tensorrt.environment.name}.cache" if timing_caches else None
    cache = _use_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT cannot build an engine of {model.name}{said.text()}")
    if timings and cache is not None:
        _keep_timings(bytes(cache.serialize()), timings)
    return bytes(plan)


def messages(trt: Any) -> Any:
    """A logger for TensorRT that keeps its errors, for the exception that they end in, and leaves the terminal alone.

    Its `text()` is all of them, each on a line, and empty where there are none.
    """

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)
            _log.debug("TensorRT: %s", msg)

        def text(self) -> str:
            return "".join(f"\n  {error}" for error in self.errors)

    return Messages()


def _parser_errors(parser: Any) -> str:
    every = (parser.get_error(index) for index in range(parser.num_errors))
    return "".join(f"\n  {reported.node_operator()} {reported.node_name()}: {reported.desc()}" for reported in every)


def _use_timings(config: Any, path: Path | None) -> Any | None:
    """Give `config` the cache at `path`, or an empty one where it is of another device or version."""
    if path is None:
        return None
    with storage_errors(path, "read"):
        kept = path.read_bytes() if path.is_file() else b""
    for content in (kept, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def _keep_timings(content: bytes, path: Path) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), replacing(path) as temporary:
        temporary.write_bytes(content)
