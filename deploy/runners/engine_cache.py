"""The engine for this machine: the one beside the model if it fits, else one built here and cached."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from deploy.artifact.engine import Engine, differences, engine_file, profile_of
from deploy.artifact.manifest import MODEL, Manifest, sha256_of
from deploy.artifact.tensors import has_dynamic_size
from deploy.runners.onnx_runner import OnnxRunner
from deploy.runners.parity import compare
from deploy.runners.seeded_inputs import seeded_inputs
from deploy.runners.trt_build import build_engine
from deploy.runners.trt_presence import TensorRT
from deploy.runners.trt_runner import TrtRunner
from maag.data.cache.root import default_cache_root
from maag.errors import StorageError
from maag.storage import read_json, replacing, require_writable_directory, storage_errors, write_json

_ENGINE = TypeAdapter(Engine)
_DIGITS = 16  # of the graph's digest, in file names
_WITHOUT_IT = (
    "the engine that was built here is not used; run without one (--backend onnx), or export the model again with "
    "another --precision"
)
_log = logging.getLogger(__name__)


class FoundEngine(NamedTuple):
    """An engine that runs on this machine."""

    runner: TrtRunner
    reason: str
    """A clause: which engine it is, and why."""


def engines_directory() -> Path:
    """Cache of engines built when a model is opened: `engines` in $MAAG_CACHE, else in ~/.cache/maag."""
    return default_cache_root() / "engines"


def find_engine(folder: Path, manifest: Manifest, tensorrt: TensorRT, batch_size: int = 16) -> FoundEngine:
    """Open the engine of the artefact in `folder`; if it was built for another environment, use a cached engine, or
    build one from `model.onnx`, measure its parity with ONNX Runtime, and cache it.

    Raises:
        ExportError: the engine cannot be built, or does not agree with the graph.
        CheckpointError: TensorRT cannot read the engine.
        StorageError: the cache cannot be written.
    """
    here = tensorrt.environment
    spec = manifest.inputs[0]
    profile = profile_of(spec, manifest.config.data.size_px)
    digest = manifest.files[MODEL]
    if manifest.engine is None:
        why = "the model has none"
    elif differ := differences(manifest.engine, here, digest, profile):
        why = f"the one beside the model is for another environment: {differ}"
    else:
        plan = _read(folder / manifest.engine.file)
        return FoundEngine(TrtRunner(plan, spec, tensorrt, batch_size), "the engine beside the model")
    cache = require_writable_directory(engines_directory())
    path = cache / f"{digest[:_DIGITS]}-{engine_file(manifest.precision, here)}"
    with FileLock(path.with_name(f".{path.name}.lock")):
        kept = _kept(path)
        if kept is not None and differences(kept, here, digest, profile) is None:
            runner = TrtRunner(_read(path), spec, tensorrt, batch_size)
            return FoundEngine(runner, f"an engine built here earlier, as {why}")
        _log.warning("building a TensorRT engine, which takes minutes: %s", why)
        plan = build_engine(folder / MODEL, manifest.precision, profile, tensorrt, cache)
        runner = TrtRunner(plan, spec, tensorrt, batch_size)
        graph = OnnxRunner(folder / MODEL, spec, "cpu", precision=manifest.precision)
        inputs = seeded_inputs(manifest.config.data, dynamic_size=has_dynamic_size(spec))
        compare(graph, runner, inputs, manifest.precision, way_out=_WITHOUT_IT)
        with replacing(path) as temporary:
            temporary.write_bytes(plan)
        engine = Engine(
            file=path.name,
            sha256=sha256_of(path),
            environment=here,
            onnx_sha256=digest,
            precision=manifest.precision,
            profile=profile,
        )
        write_json(_sidecar(path), _ENGINE.dump_python(engine, mode="json"))
    return FoundEngine(runner, f"an engine built here now, as {why}")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _kept(path: Path) -> Engine | None:
    """The sidecar file of the engine at `path`; None if either is missing or damaged."""
    if not (path.is_file() and _sidecar(path).is_file()):
        return None
    try:
        engine = _ENGINE.validate_python(read_json(_sidecar(path)))
    except (StorageError, ValidationError):
        return None
    return engine if engine.sha256 == sha256_of(path) else None


def _read(path: Path) -> bytes:
    with storage_errors(path, "read"):
        return path.read_bytes()
