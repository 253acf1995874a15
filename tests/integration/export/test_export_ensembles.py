"""Several runs exported as one model: everything downstream works, with the mean of their probabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from command_line import run
from fake_cuda import FakeCuda
from tensorrt_stand_in import VERSIONS, TensorRTStandIn

from deploy.artifact.manifest import load_manifest
from deploy.exporting.ensembles import average_of
from deploy.exporting.onnx_export import EngineOrder, export
from deploy.runners.opening import open_artifact
from deploy.runners.trt_presence import TensorRT
from maag.checkpoint import load_segmentor, save_segmentor
from maag.config.codec import override
from maag.data.catalog import preset
from maag.inference import TorchRunner
from maag.models.build import build_segmentor

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of different widths, on different splits."""
    folders = []
    for seed, width in enumerate((4, 6)):
        config = override(
            preset("acdc", "fast"), {"data.size_px": [48, 32], "data.spacing_mm": 2.0, "segmentor.width": width}
        )
        torch.manual_seed(seed)
        segmentor = build_segmentor(config)
        for _ in range(20):  # Statistics of batch normalisation that differ from the initial ones.
            segmentor(torch.randn(4, 1, 48, 32))
        path = tmp_path_factory.mktemp("runs") / f"fold{seed}" / "checkpoints" / "best.safetensors"
        path.parent.mkdir(parents=True)
        info = {"kind": "best", "split_digest": f"split{seed}", "shortfalls": {"LV": 1.5}, "orientations": ["LPS"]}
        save_segmentor(path, config, segmentor.state_dict(), info)
        folders.append(path.parent.parent)
    return folders


@pytest.fixture(scope="module")
def model(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensemble") / "model"
    assert run("export", *runs, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "heart.nii.gz"
    smooth = np.cumsum(np.cumsum(np.random.default_rng(5).normal(size=(90, 80, 3)), axis=0), axis=1)
    nibabel.save(nibabel.Nifti1Image(smooth.astype(np.float32), np.diag([-1.4, -1.7, 8.0, 1.0])), path)
    return path


def predict(model: Path, scan: Path, out: Path, *options: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of the scan."""
    assert run("predict", scan, "--model", model, "--out", out, "--probabilities", *options) == 0
    labels, probabilities = (nibabel.load(out / f"heart{end}.nii.gz") for end in ("", "_probabilities"))
    return np.asarray(labels.dataobj), np.asarray(probabilities.dataobj)


def test_predicted_probabilities_are_the_mean_of_those_of_the_runs(
    runs: list[Path], model: Path, scan: Path, tmp_path: Path
) -> None:
    labels, found = predict(model, scan, tmp_path / "mean")
    each = [predict(path, scan, tmp_path / path.name)[1] for path in runs]
    assert np.abs(each[0] - each[1]).max() > 0.1
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-3)
    assert len(np.unique(labels)) > 1

    words = [sys.executable, str(model / "segment.py"), str(scan), str(tmp_path / "alone.nii.gz")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "alone.nii.gz").dataobj), labels)


def test_the_ledger_and_review_know_the_ensemble(
    model: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(model, scan, tmp_path / "out", "--review")
    printed = " ".join(capsys.readouterr().err.split())
    assert "no correction of its expected Dice, as it averages 2 networks, whose own corrections do not" in printed
    *_, last = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(last)["model"] == load_manifest(model).files["model.onnx"] + "+probabilities"


def test_manifest_and_card_list_the_runs(runs: list[Path], model: Path) -> None:
    manifest = load_manifest(model)
    trained = [load_segmentor(path) for path in runs]
    assert [(each.sha256, each.split_digest) for each in manifest.source.members] == [
        (each.digest, f"split{number}") for number, each in enumerate(trained)
    ]
    assert manifest.config == trained[0].config
    assert manifest.source.split_digest is None
    card = (model / "model_card.md").read_text()
    assert all(each.digest in card for each in trained)
    assert all(row.max_difference < 1e-4 and row.label_agreement > 0.999 for row in manifest.parity)


def test_an_engine_in_half_precision_agrees_with_the_mean(runs: list[Path], tmp_path: Path) -> None:
    trained = [load_segmentor(path) for path in runs]
    order = EngineOrder(tensorrt=TensorRT(TensorRTStandIn(VERSIONS[-1]), FakeCuda()))
    ensemble, source = average_of(trained)
    out = tmp_path / "model"
    manifest = export(ensemble, trained[0].config, out, source, precision="fp16", engine=order)
    assert manifest.precision == "fp16"
    assert {row.candidate for row in manifest.parity} == {"onnx-cpu", "tensorrt"}
    opened = open_artifact(out, tensorrt=order.tensorrt)
    assert opened.runner.name == "tensorrt"
    images = np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype(np.float32)
    expected = np.mean([TorchRunner(each.segmentor)(images) for each in trained], axis=0)
    np.testing.assert_allclose(opened.runner(images), expected, atol=2e-2)
