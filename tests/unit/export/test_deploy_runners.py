"""ONNX Runtime on a handmade graph: softmax over images and their negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.artifact.tensors import TensorSpec
from deploy.runners import onnx_runner
from deploy.runners.onnx_runner import OnnxRunner, available_providers
from maag.errors import CheckpointError, ConfigError, DataError

SPEC = TensorSpec(name="images", dtype="float32", shape=("batch", 1, 4, 6))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["images"], ["negative"]),
            helper.make_node("Concat", ["negative", "images"], ["logits"], axis=1),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "by-hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 4, 6])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2, 4, 6])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_probabilities_are_correct_with_a_partial_last_batch(model: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 1, 4, 6)).astype(np.float32)
    runner = OnnxRunner(model, SPEC, "cpu", batch_size=2)
    found = runner(images)
    assert runner.name == "onnx-cpu"
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 1:], 1 / (1 + np.exp(-2 * images)), rtol=1e-5)


def test_images_of_another_size_are_refused(model: Path) -> None:
    with pytest.raises(DataError, match=r"\(1, 4, 6\), got \(1, 6, 4\)"):
        OnnxRunner(model, SPEC, "cpu")(np.zeros((1, 1, 6, 4), np.float32))


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot open it"):
        OnnxRunner(tmp_path / "model.onnx", SPEC, "cpu")


def test_cuda_is_never_silently_replaced_by_the_cpu(model: Path) -> None:
    if available_providers() != ("CPUExecutionProvider",):
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="cannot use CUDA here"):
        OnnxRunner(model, SPEC, "cuda")


def test_models_of_one_architecture_do_not_share_cached_tensorrt_engines(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    tensorrt_options: list[dict[str, str]] = []

    def record_options(path: Path, device: str, providers: list[tuple[str, dict[str, str]]], *, fused: bool) -> None:
        tensorrt_options.append(dict(providers)["TensorrtExecutionProvider"])

    every = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(onnx_runner, "available_providers", lambda: every)
    monkeypatch.setattr(onnx_runner, "_open_session", record_options)
    other = tmp_path / "other" / "model.onnx"
    other.parent.mkdir()
    graph = onnx.load(model)
    graph.graph.doc_string = "other weights"
    onnx.save(graph, other)
    for path, batch_size in ((model, 16), (model, 16), (other, 16), (model, 8)):
        OnnxRunner(path, SPEC, "auto", batch_size, precision="fp16")
    folders = [Path(options["trt_engine_cache_path"]) for options in tensorrt_options]
    assert all(folder.is_dir() for folder in folders)
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
