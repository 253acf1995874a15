"""Build a TensorRT engine from an ONNX file, the same way for TensorRT 10.12 and later, and 11.

Every type comes from the graph (strong typing), so only TF32, which drops thirteen bits of fp32, depends on the
precision.
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
    """The serialized engine of the ONNX file `model` for the device of `tensorrt`; takes seconds to minutes.

    Args:
        model: a graph without external data.
        precision: the graph's.
        profile: the input shapes that the engine must accept.
        tensorrt: TensorRT and its device.
        timing_caches: a folder for kernel timings, which make the next build faster.

    Raises:
        ExportError: TensorRT does not start, cannot parse the graph or cannot build it; with its messages.
        StorageError: a file cannot be read or written.
    """
    trt = tensorrt.trt
    with storage_errors(model, "read"):
        graph = model.read_bytes()
    logger = messages(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # pybind's error for a constructor that returns nothing
        raise ExportError(f"TensorRT does not start here ({error}){logger.text()}") from error
    # The enum value is 1 in TensorRT 10 and 0 in 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise ExportError(f"TensorRT cannot parse {model.name}:{_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    # Engine inspectors then show the types of layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    shapes.set_shape(IMAGES, profile.smallest, profile.tuned, profile.largest)
    if config.add_optimization_profile(shapes) < 0:
        raise ExportError(f"TensorRT does not accept the profile {profile.name}{logger.text()}")
    timings = timing_caches / f"timings-{tensorrt.environment.name}.cache" if timing_caches else None
    cache = _use_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT cannot build an engine from {model.name}{logger.text()}")
    if timings and cache is not None:
        _keep_timings(bytes(cache.serialize()), timings)
    return bytes(plan)


def messages(trt: Any) -> Any:
    """A TensorRT logger that collects errors, for the message of an exception, instead of printing them.

    Its `text()` has each error on a line of its own, and is empty if there are none.
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
    """Set the timing cache at `path`, or an empty one if that is of another device or version."""
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
