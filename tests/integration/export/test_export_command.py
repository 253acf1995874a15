"""The command `maag export`, without TensorRT and without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_artifact import CONFIG

from deploy.artifact.manifest import load_manifest
from deploy.runners.trt_presence import look_for_tensorrt
from maag.checkpoint import save_segmentor
from maag.cli.main import main
from maag.config.codec import override
from maag.models.build import build_segmentor

pytestmark = pytest.mark.integration
MISSING = look_for_tensorrt().missing


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    config = override(CONFIG, {"segmentor.width": 2})
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    save_segmentor(path, config, build_segmentor(config).state_dict(), {"kind": "best"})
    return path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)


@pytest.mark.skipif(not MISSING, reason="nothing is missing")
def test_without_tensorrt_the_onnx_model_is_exported_and_missing_parts_reported(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    words = ("export", weights, "--out", out, "--trt", "--gates", "--dynamic-size", "--triton", "--json")
    assert run(*words) == 1
    captured = capsys.readouterr()
    manifest = load_manifest(out)
    assert manifest.engine is None
    assert [spec.name for spec in manifest.outputs] == ["probabilities", "labels", "gates_0"]
    assert manifest.inputs[0].shape == ("batch", 1, "height", "width")
    assert (out / "triton" / "segmentor" / "1" / "model.onnx").is_file()
    assert json.loads(captured.out)["engine"] is None
    sentence = captured.err.splitlines()[-1]
    assert sentence.startswith(f"Error: no engine was built, {out} holds only the ONNX model: ")
    assert all(clause in sentence for clause in MISSING)
    assert "Traceback" not in captured.err


def test_gates_of_a_model_without_gates_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = override(CONFIG, {"segmentor.width": 2, "gates.levels": []})
    save_segmentor(tmp_path / "w.safetensors", config, build_segmentor(config).state_dict(), {"kind": "best"})
    assert run("export", tmp_path / "w.safetensors", "--out", tmp_path / "model", "--gates") == 2
    assert "was trained without attention gates" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_parity_measured_without_foreground_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = override(CONFIG, {"segmentor.width": 2})
    blind = build_segmentor(config)
    with torch.no_grad():
        blind.classify.weight.zero_()
        blind.classify.bias.copy_(torch.tensor([9.0, -9.0]))
    save_segmentor(tmp_path / "w.safetensors", config, blind.state_dict(), {"kind": "best"})
    assert run("export", tmp_path / "w.safetensors", "--out", tmp_path / "model") == 0
    sentence = "labels almost no foreground in the images that parity was measured on"
    assert f"Warning: PyTorch {sentence}" in " ".join(capsys.readouterr().err.split())
    assert sentence in (tmp_path / "model" / "model_card.md").read_text()
