"""Engines and their environment: what is missing, mismatches, rebuilding into the cache, the choice of backend."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda
from tensorrt_stand_in import VERSIONS, TensorRTStandIn
from tiny_artifact import CONFIG, tiny_manifest, write_tiny_artifact

from deploy.artifact.engine import Engine, Environment, differences, engine_file, profile_of
from deploy.artifact.manifest import MODEL, Manifest, load_manifest, sha256_of, write_manifest
from deploy.artifact.tensors import input_spec
from deploy.runners.engine_cache import engines_directory, find_engine
from deploy.runners.opening import open_artifact
from deploy.runners.trt_build import build_engine
from deploy.runners.trt_presence import TensorRT, import_tensorrt, look_for_tensorrt
from maag.errors import ConfigError, ExportError

H100 = Environment(gpu="NVIDIA H100 80GB HBM3", compute_capability="9.0", tensorrt="10.16.1.11", cuda="13.0")
SPEC = input_spec(CONFIG)
PROFILE = profile_of(SPEC, CONFIG.data.size_px)
NO_GPU = not torch.cuda.is_available()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_engine(**changes: Any) -> Engine:
    engine = Engine(
        file=engine_file("fp16", H100), sha256="aa", environment=H100, onnx_sha256="cc" * 32, precision="fp16",
        profile=PROFILE,
    )  # fmt: skip
    return dataclasses.replace(engine, **changes)


def test_the_engine_file_name_states_its_environment() -> None:
    assert engine_file("fp16", H100) == "model-fp16-nvidia-h100-80gb-hbm3-sm90-trt10.16.1.11-cuda13.0.engine"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gpu": "NVIDIA L4"}, "GPU NVIDIA H100 80GB HBM3 there, NVIDIA L4 here"),
        ({"compute_capability": "8.9"}, "compute capability 9.0 there, 8.9 here"),
        ({"tensorrt": "11.4.0.106"}, "TensorRT 10.16.1.11 there, 11.4.0.106 here"),
        ({"cuda": "12.8"}, "CUDA 13.0 there, 12.8 here"),
    ],
)
def test_a_mismatch_is_named_with_both_values(change: dict[str, str], sentence: str) -> None:
    assert differences(make_engine(), dataclasses.replace(H100, **change), "cc" * 32, PROFILE) == sentence


def test_differences_list_every_mismatch_or_are_none() -> None:
    assert differences(make_engine(), H100, "cc" * 32, PROFILE) is None
    other = dataclasses.replace(H100, gpu="NVIDIA L4", cuda="12.8")
    found = differences(make_engine(), other, "dd" * 32, dataclasses.replace(PROFILE, largest=(8, 1, 16, 32)))
    assert found is not None
    assert [part.split()[0] for part in found.split("; ")] == ["GPU", "CUDA", "model.onnx", "profile"]
    assert "profile 1x1x16x32 / 16x1x16x32 / 64x1x16x32 there" in found


def raising(error: Exception) -> Any:
    def load() -> Any:
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "has_gpu", "sentences"),
    [
        (
            raising(ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")),
            True,
            [r"is not installed \(pip"],
        ),
        (raising(ModuleNotFoundError("No module named 'x'", name="x")), True, ["package is damaged"]),
        (raising(ImportError("libnvinfer.so.10: cannot open")), True, ["without its libraries, libnvinfer.so.10"]),
        (raising(OSError("libnvinfer.so.11: cannot open")), True, ["without its libraries"]),
        (lambda: SimpleNamespace(__version__="10.11.0.33"), True, ["TensorRT 10.11 is older than 10.12, the oldest"]),
        (lambda: SimpleNamespace(__version__="8.6.1.post1"), False, ["TensorRT 8.6 is older", "PyTorch finds no GPU"]),
        (lambda: SimpleNamespace(__version__="10.12.0.36"), False, ["PyTorch finds no GPU"]),
        (lambda: SimpleNamespace(__version__="11.0.0.114"), True, []),
    ],
)
def test_each_missing_tensorrt_requirement_is_reported(load: Any, has_gpu: bool, sentences: list[str]) -> None:
    import re

    presence = look_for_tensorrt(load, lambda: has_gpu)
    assert len(presence.missing) == len(sentences)
    for clause, wanted in zip(presence.missing, sentences, strict=True):
        assert re.search(wanted, clause)
    assert (presence.trt is None) == bool(len(sentences) - (not has_gpu))


def test_a_tensorrt_package_without_its_libraries_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tensorrt" in sys.modules:
        pytest.skip("the real one is loaded")
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text("import ctypes; ctypes.CDLL('libnvinfer-nowhere.so.10')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    presence = look_for_tensorrt(import_tensorrt, lambda: True)
    assert "is installed without its libraries, libnvinfer-nowhere.so.10: cannot open" in presence.sentence


@pytest.fixture(params=VERSIONS)
def tensorrt(request: pytest.FixtureRequest) -> TensorRT:
    return TensorRT(TensorRTStandIn(str(request.param)), FakeCuda())


def write_engine(folder: Path, tensorrt: TensorRT) -> Manifest:
    """Write an artifact to `folder` with an engine for the environment of `tensorrt`."""
    write_tiny_artifact(folder)
    here = tensorrt.environment
    path = folder / engine_file("fp32", here)
    path.write_bytes(build_engine(folder / MODEL, "fp32", PROFILE, tensorrt))
    engine = Engine(
        file=path.name, sha256=sha256_of(path), environment=here, onnx_sha256=sha256_of(folder / MODEL),
        precision="fp32", profile=PROFILE,
    )  # fmt: skip
    manifest = tiny_manifest(folder, engine=engine)
    write_manifest(folder, manifest)
    return manifest


def test_an_engine_that_matches_the_environment_is_used(tmp_path: Path, tensorrt: TensorRT, cache: Path) -> None:
    manifest = write_engine(tmp_path / "model", tensorrt)
    assert load_manifest(tmp_path / "model") == manifest
    opened = open_artifact(tmp_path / "model", tensorrt=tensorrt)
    assert opened.reason == "TensorRT: the engine beside the model"
    assert opened.runner(np.zeros((3, 1, 16, 32), np.float32)).shape == (3, 2, 16, 32)
    assert not cache.exists()


def test_an_engine_for_another_gpu_is_rebuilt_once_and_cached(tmp_path: Path, tensorrt: TensorRT, cache: Path) -> None:
    manifest = write_engine(tmp_path / "model", tensorrt)
    elsewhere = TensorRT(tensorrt.trt, FakeCuda(gpu="NVIDIA L4"))
    found = find_engine(tmp_path / "model", manifest, elsewhere)
    named = "the one beside the model is for another environment: GPU NVIDIA Stand-In there, NVIDIA L4 here"
    assert found.reason == f"an engine built here now, as {named}"
    (kept,) = engines_directory().glob("*.engine")
    assert engines_directory() == cache / "engines"
    assert "nvidia-l4-sm90" in kept.name
    sidecar = json.loads(kept.with_name(f"{kept.name}.json").read_text())
    assert sidecar["environment"]["gpu"] == "NVIDIA L4"
    assert sidecar["onnx_sha256"] == manifest.files[MODEL]
    again = find_engine(tmp_path / "model", manifest, elsewhere)
    assert again.reason == f"an engine built here earlier, as {named}"
    images = np.random.default_rng(0).normal(size=(3, 1, 16, 32)).astype(np.float32)
    np.testing.assert_array_equal(again.runner(images), found.runner(images))


@pytest.mark.parametrize("damage", ["engine", "side-car"])
def test_a_damaged_cached_engine_is_rebuilt(tmp_path: Path, tensorrt: TensorRT, damage: str) -> None:
    manifest = write_tiny_artifact(tmp_path / "model")
    find_engine(tmp_path / "model", manifest, tensorrt)
    (kept,) = engines_directory().glob("*.engine")
    (kept if damage == "engine" else kept.with_name(f"{kept.name}.json")).write_bytes(b"half")
    found = find_engine(tmp_path / "model", manifest, tensorrt)
    assert found.reason == "an engine built here now, as the model has none"
    assert sidecar_digest(kept) == sha256_of(kept)


def sidecar_digest(engine: Path) -> str:
    return str(json.loads(engine.with_name(f"{engine.name}.json").read_text())["sha256"])


def test_a_rebuilt_engine_with_wrong_results_is_not_cached(tmp_path: Path, tensorrt: TensorRT) -> None:
    manifest = write_tiny_artifact(tmp_path / "model")
    wrong = TensorRT(TensorRTStandIn(version_of(tensorrt), "numbers"), tensorrt.cuda)
    sentence = r"tensorrt against onnx-cpu .*is not used; run without one \(--backend onnx\)"
    with pytest.raises(ExportError, match=sentence) as caught:
        find_engine(tmp_path / "model", manifest, wrong)
    assert "exported" not in str(caught.value)
    assert {path.suffix for path in engines_directory().iterdir()} == {".lock", ".cache"}


def test_auto_falls_back_to_onnx_runtime_and_gives_the_reason(tmp_path: Path, tensorrt: TensorRT) -> None:
    write_engine(tmp_path / "model", tensorrt)
    elsewhere = TensorRT(TensorRTStandIn(VERSIONS[0], "build"), FakeCuda(gpu="NVIDIA L4"))
    opened = open_artifact(tmp_path / "model", tensorrt=elsewhere)
    assert opened.reason.startswith("ONNX Runtime on the CPU: no engine can be used, TensorRT cannot build an engine")
    assert opened.runner.name == "onnx-cpu"
    with pytest.raises(ConfigError, match="--backend tensorrt cannot be used: TensorRT cannot build"):
        open_artifact(tmp_path / "model", backend="tensorrt", tensorrt=elsewhere)
    for gpu in ("NVIDIA L4", "NVIDIA Stand-In"):  # An engine to build, and one to read.
        unstarted = TensorRT(TensorRTStandIn(version_of(tensorrt), "start"), FakeCuda(gpu=gpu))
        opened = open_artifact(tmp_path / "model", tensorrt=unstarted)
        assert "no engine can be used, TensorRT does not start here (pybind11::init()" in opened.reason
        assert opened.runner.name == "onnx-cpu"
    full = TensorRT(TensorRTStandIn(version_of(tensorrt), "context"), tensorrt.cuda)
    opened = open_artifact(tmp_path / "model", tensorrt=full)
    assert "no engine can be used, TensorRT cannot prepare the engine, perhaps for lack of GPU memory" in opened.reason
    opened = open_artifact(tmp_path / "model", tensorrt=TensorRT(tensorrt.trt, FakeCuda(memory=0)))
    assert "no engine can be used, the GPU has too little memory for the engine (CUDA out of memory." in opened.reason
    assert opened.runner.name == "onnx-cpu"


def version_of(tensorrt: TensorRT) -> str:
    return next(version for version in VERSIONS if str(tensorrt.trt.__version__).startswith(version))


def test_the_requested_backend_and_device_are_used(tmp_path: Path, tensorrt: TensorRT) -> None:
    write_tiny_artifact(tmp_path / "model")
    assert open_artifact(tmp_path / "model", "cpu").reason == "ONNX Runtime on the CPU: --device is cpu"
    without = open_artifact(tmp_path / "model", tensorrt=tensorrt)
    assert "the model has no TensorRT engine; `maag export --trt` builds one" in without.reason
    asked = open_artifact(tmp_path / "model", backend="tensorrt", tensorrt=tensorrt)
    assert asked.reason == "TensorRT: an engine built here now, as the model has none"
    assert asked.runner.name == "tensorrt"
    chosen = open_artifact(tmp_path / "model", backend="onnx", tensorrt=tensorrt)
    assert chosen.reason.endswith(": --backend is onnx")
    with pytest.raises(ConfigError, match="needs a GPU, but --device is cpu"):
        open_artifact(tmp_path / "model", "cpu", backend="tensorrt")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_only_onnx_runtime_can_be_used_without_a_gpu(tmp_path: Path) -> None:
    write_tiny_artifact(tmp_path / "model")
    assert open_artifact(tmp_path / "model").reason == "ONNX Runtime on the CPU: no GPU found"
    with pytest.raises(ConfigError, match=r"--backend tensorrt cannot be used: .*PyTorch finds no GPU"):
        open_artifact(tmp_path / "model", backend="tensorrt")
