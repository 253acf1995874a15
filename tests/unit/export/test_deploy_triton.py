"""The model configuration written for Triton."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tiny_artifact import write_tiny_artifact
from triton_config import parse_pbtxt, triton_tensor

from deploy.artifact.manifest import MODEL, load_manifest
from deploy.exporting.triton import config_of, write_repository


def test_the_triton_configuration_matches_the_manifest(tmp_path: Path) -> None:
    manifest = write_tiny_artifact(tmp_path)
    repository = write_repository(tmp_path, manifest)
    assert [path.name for path in repository.iterdir()] == ["segmentor"]
    config = parse_pbtxt((repository / "segmentor" / "config.pbtxt").read_text())
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("segmentor", "onnxruntime_onnx", 64)
    assert config["input"] == [{"name": "images", "data_type": "TYPE_FP32", "dims": [1, 16, 32]}]
    assert config["output"] == [triton_tensor(spec) for spec in manifest.outputs]
    assert [output["name"] for output in config["output"]] == ["probabilities", "labels", "gates_0"]
    assert (repository / "segmentor" / "1" / "model.onnx").read_bytes() == (tmp_path / MODEL).read_bytes()
    assert load_manifest(tmp_path) == manifest


def test_int8_graphs_are_served_without_fusions(tmp_path: Path) -> None:
    manifest = write_tiny_artifact(tmp_path)
    for precision, optimization in (("int8", {"graph": {"level": 2}}), ("fp16", None)):
        repository = write_repository(tmp_path, replace(manifest, precision=precision))
        config = parse_pbtxt((repository / "segmentor" / "config.pbtxt").read_text())
        assert config.get("optimization") == optimization
    assert "optimization" not in parse_pbtxt(config_of(replace(manifest, precision="int8"), "x", "tensorrt_plan"))
