"""Real engines on a real GPU: built, equal to PyTorch at every batch size, and rebuilt elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_artifact import write_tiny_graph

from deploy.artifact.engine import Precision
from deploy.artifact.manifest import MODEL, Manifest, Source, load_manifest, write_manifest
from deploy.exporting.onnx_export import EngineOrder, export
from deploy.runners.engine_cache import find_engine
from deploy.runners.onnx_runner import OnnxRunner, available_providers
from deploy.runners.opening import open_artifact
from deploy.runners.parity import LIMITS
from deploy.runners.trt_build import build_engine, messages
from deploy.runners.trt_presence import TensorRT, look_for_tensorrt, open_tensorrt
from deploy.runners.trt_runner import TrtRunner
from maag.config.codec import override
from maag.data.catalog import preset
from maag.errors import ExportError
from maag.inference import TorchRunner
from maag.models.build import build_segmentor
from maag.models.ensemble import Ensemble
from maag.models.segmentor import Segmentor

# Nothing of TensorRT is touched to find out: its runtime ends the process where there is no GPU.
MISSING = look_for_tensorrt().sentence
needs_tensorrt = pytest.mark.skipif(bool(MISSING), reason=MISSING or "it is all here")
pytestmark = pytest.mark.gpu

CONFIG = override(preset("acdc", "fast"), {"data.size_px": [96, 64], "data.spacing_mm": 2.0, "segmentor.width": 16})
SOURCE = Source(checkpoint="best.safetensors", sha256="00")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tensorrt() -> TensorRT:
    return open_tensorrt()


@pytest.fixture(scope="module")
def segmentor() -> Segmentor:
    torch.manual_seed(0)
    made = build_segmentor(CONFIG)
    for _ in range(20):
        made(torch.randn(4, 1, 96, 64))
    return made


def images_of(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(count).normal(size=(count, 1, 96, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def artifacts(
    segmentor: Segmentor, tensorrt: TensorRT, tmp_path_factory: pytest.TempPathFactory
) -> dict[Precision, Path]:
    """An artefact with gates and an engine in each precision; parity held while they were made."""
    folder = tmp_path_factory.mktemp("engines")
    order = EngineOrder(tensorrt=tensorrt, timing_caches=folder)
    for precision in PRECISIONS:
        export(
            segmentor, CONFIG, folder / precision, SOURCE,
            precision=precision, calibration=images_of(8), gates=True, engine=order,
        )  # fmt: skip
    return {precision: folder / precision for precision in PRECISIONS}


@needs_tensorrt
@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_agrees_with_pytorch_from_the_smallest_to_the_largest_batch(
    precision: Precision, artifacts: dict[Precision, Path], segmentor: Segmentor, tensorrt: TensorRT
) -> None:
    manifest = load_manifest(artifacts[precision])
    assert manifest.engine is not None
    assert {row.candidate for row in manifest.parity} == {"onnx-cpu", "tensorrt"}
    plan = (artifacts[precision] / manifest.engine.file).read_bytes()
    runner = TrtRunner(plan, manifest.inputs[0], tensorrt, batch_size=64)
    reference = TorchRunner(segmentor)
    for count in (1, 16, 64, 67):
        found = runner.outputs(images_of(count))
        difference = float(np.abs(found["probabilities"] - reference(images_of(count))).max())
        assert difference <= LIMITS[precision].max_difference
        assert found["labels"].dtype == np.uint8
        np.testing.assert_array_equal(found["labels"], found["probabilities"].argmax(axis=1))
        for level in CONFIG.gates.levels:
            gate = found[f"gates_{level}"]
            assert gate.shape == (count, 1, 96 >> level, 64 >> level)
            assert gate.min() >= 0
            assert gate.max() <= 1 + 1e-2


@needs_tensorrt
@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_of_an_ensemble_agrees_with_the_mean_of_its_networks(
    precision: Precision, segmentor: Segmentor, tensorrt: TensorRT, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = build_segmentor(CONFIG)
    for _ in range(20):
        other(torch.randn(4, 1, 96, 64))
    order = EngineOrder(tensorrt=tensorrt)
    ensemble, out = Ensemble([segmentor, other]), tmp_path / "model"
    export(ensemble, CONFIG, out, SOURCE, precision=precision, calibration=images_of(8), engine=order)
    opened = open_artifact(out, tensorrt=tensorrt)
    assert opened.runner.name == "tensorrt"
    images = images_of(17)
    expected = np.mean([TorchRunner(network)(images) for network in (segmentor, other)], axis=0)
    assert float(np.abs(opened.runner(images) - expected).max()) <= LIMITS[precision].max_difference


@needs_tensorrt
@pytest.mark.parametrize(("precision", "kind"), [("fp16", "Half"), ("int8", "Int8")])
def test_engine_layers_have_the_precision_of_the_graph(
    precision: Precision, kind: str, artifacts: dict[Precision, Path], tensorrt: TensorRT
) -> None:
    manifest = load_manifest(artifacts[precision])
    assert manifest.engine is not None
    trt = tensorrt.trt
    runtime = trt.Runtime(messages(trt))
    engine = runtime.deserialize_cuda_engine((artifacts[precision] / manifest.engine.file).read_bytes())
    information = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    assert kind in json.dumps(json.loads(information))


@needs_tensorrt
def test_cuda_graph_computes_the_same_as_plain_queueing(artifacts: dict[Precision, Path], tensorrt: TensorRT) -> None:
    manifest = load_manifest(artifacts["fp16"])
    assert manifest.engine is not None
    plan = (artifacts["fp16"] / manifest.engine.file).read_bytes()
    captured = TrtRunner(plan, manifest.inputs[0], tensorrt, batch_size=8)
    queued = TrtRunner(plan, manifest.inputs[0], tensorrt, batch_size=8, graphs=False)
    for count in (8, 3, 8, 1, 11):
        np.testing.assert_array_equal(captured(images_of(count)), queued(images_of(count)))
    assert (captured.num_graphs, queued.num_graphs) == (3, 0)


@needs_tensorrt
def test_engine_from_another_environment_is_reported_and_rebuilt(
    artifacts: dict[Precision, Path], tensorrt: TensorRT, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(artifacts["fp32"], folder)
    manifest = load_manifest(folder)
    assert open_artifact(folder).reason == "TensorRT: the engine beside the model"
    moved = moved_elsewhere(manifest)
    write_manifest(folder, moved)
    found = find_engine(folder, moved, tensorrt)
    assert "GPU NVIDIA Elsewhere there" in found.reason
    assert "TensorRT 9.9 there" in found.reason
    assert find_engine(folder, moved, tensorrt).reason.startswith("an engine built here earlier")
    graph = OnnxRunner(folder / MODEL, manifest.inputs[0], "cpu")
    np.testing.assert_allclose(found.runner(images_of(3)), graph(images_of(3)), atol=1e-3)


def moved_elsewhere(manifest: Manifest) -> Manifest:
    assert manifest.engine is not None
    environment = dataclasses.replace(manifest.engine.environment, gpu="NVIDIA Elsewhere", tensorrt="9.9")
    return dataclasses.replace(manifest, engine=dataclasses.replace(manifest.engine, environment=environment))


@needs_tensorrt
def test_engine_runs_any_size_within_its_profile(segmentor: Segmentor, tensorrt: TensorRT, tmp_path: Path) -> None:
    order = EngineOrder(tensorrt=tensorrt)
    manifest = export(segmentor, CONFIG, tmp_path / "free", SOURCE, dynamic_size=True, engine=order)
    assert len({row.inputs for row in manifest.parity}) == 6
    runner, reference = open_artifact(tmp_path / "free").runner, TorchRunner(segmentor)
    for shape in ((1, 1, 16, 16), (3, 1, 96, 64), (16, 1, 192, 128)):
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(runner(images), reference(images), atol=1e-3)


@needs_tensorrt
def test_parse_errors_of_tensorrt_are_reported_verbatim(tensorrt: TensorRT, tmp_path: Path) -> None:
    from deploy.artifact.engine import Profile

    write_tiny_graph(tmp_path / MODEL)
    (tmp_path / MODEL).write_bytes((tmp_path / MODEL).read_bytes()[:-40])
    one = (1, 1, 16, 32)
    with pytest.raises(ExportError, match=r"cannot parse model\.onnx:\n"):
        build_engine(tmp_path / MODEL, "fp32", Profile(smallest=one, tuned=one, largest=one), tensorrt)


@pytest.mark.skipif(len(available_providers()) == 1, reason="ONNX Runtime has no GPU here")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_on_cuda_agrees_with_the_cpu(precision: Precision, segmentor: Segmentor, tmp_path: Path) -> None:
    manifest = export(segmentor, CONFIG, tmp_path / "model", SOURCE, precision=precision)
    spec = manifest.inputs[0]
    on_gpu = OnnxRunner(tmp_path / "model" / MODEL, spec, "cuda", precision=precision)
    on_cpu = OnnxRunner(tmp_path / "model" / MODEL, spec, "cpu", precision=precision)
    assert on_gpu.name in ("onnx-cuda", "onnx-tensorrt")
    limit = LIMITS[precision].max_difference
    np.testing.assert_allclose(on_gpu(images_of(5)), on_cpu(images_of(5)), atol=limit)
