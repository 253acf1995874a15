"""An exported artefact is complete and predicts as the segmentor does."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import onnx
import pytest

from deploy.artifact.manifest import load_manifest
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.runners.opening import open_artifact
from maag.config.schema import Config
from maag.data.cases import Case
from maag.errors import DataError
from maag.evaluate.measure import evaluate, runner_predictor
from maag.evaluate.prediction_files import file_predictor, prediction_files
from maag.evaluate.report import Subject
from maag.inference import TorchRunner
from maag.models.segmentor import Segmentor

pytestmark = pytest.mark.integration


def test_artifact_is_complete_and_records_its_parity(artifact: Path, config: Config) -> None:
    manifest = load_manifest(artifact)
    names = ["README.md", "manifest.json", "model.onnx", "model_card.md", "segment.py"]
    assert sorted(path.name for path in artifact.iterdir()) == names
    assert "| 2 | MYO | #fdd835 |" in (artifact / "README.md").read_text()
    assert "It is not a medical device" in (artifact / "model_card.md").read_text()
    assert manifest.config == config
    assert [row.inputs for row in manifest.parity] == ["noise-1", "noise-2", "noise-5", "phantoms", "blobs", "a case"]
    assert all(row.max_difference < 1e-4 and row.label_agreement == 1 for row in manifest.parity)


def test_graph_is_portable_and_contains_no_local_paths(artifact: Path) -> None:
    model = onnx.load(artifact / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not any(node.metadata_props for node in model.graph.node)
    assert b".py" not in (artifact / "model.onnx").read_bytes()


def test_export_leaves_the_segmentor_in_training_mode(artifact: Path, segmentor: Segmentor) -> None:
    assert all(part.training for part in segmentor.modules())


def test_graph_outputs_labels_as_uint8(artifact: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities, labels = session.run(
        None, {"images": np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype("f")}
    )
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))


def test_images_of_another_size_are_refused(artifact: Path) -> None:
    with pytest.raises(DataError, match=r"\(1, 48, 32\), got \(1, 32, 32\)"):
        open_artifact(artifact, "cpu").runner(np.zeros((1, 1, 32, 32), np.float32))


def test_artifact_predicts_as_the_segmentor_does(
    artifact: Path, segmentor: Segmentor, config: Config, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    cases = []
    for number in (1, 2):
        image = tmp_path / "scans" / f"patient{number:03}" / f"patient{number:03}_frame01.nii.gz"
        image.parent.mkdir(parents=True)
        affine = np.diag([1.4, 1.4, 8.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(random.normal(size=(51, 60, 3)).astype(np.float32), affine), image)
        mask = tmp_path / "masks" / image.name
        mask.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(random.integers(0, 4, (51, 60, 3), np.uint8), affine), mask)
        cases.append(
            Case(
                case_id=image.name[:18],
                patient_id=image.parent.name,
                frame="frame01",
                images=(image,),
                masks=(mask,),
            )
        )
    opened = open_artifact(artifact)
    executor, data = Threads(opened.runner), opened.manifest.config.data
    outcome = predict([tmp_path / "scans"], executor, data, tmp_path / "out", opened.digest)
    assert (outcome.done, outcome.failed) == (2, ())

    subject = Subject(model="here", dataset="acdc", split="all")
    by_file = evaluate(
        cases, file_predictor(prediction_files(tmp_path / "out", cases), config.data), config.data, subject
    )
    by_torch = evaluate(cases, runner_predictor(TorchRunner(segmentor), config.data), config.data, subject)
    for score in ("dice", "hd95_mm"):
        assert by_file.mean(score) == pytest.approx(by_torch.mean(score), rel=1e-2)
