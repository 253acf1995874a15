"""A segmentor leaves as an artefact, predicts a folder, and its predictions are measured."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nibabel
import numpy as np
import onnx
import pytest
import torch

from deploy.artifact.manifest import Source, load_manifest
from deploy.exporting.onnx_export import export
from deploy.predicting.batch import predict
from deploy.predicting.crew import Threads
from deploy.runners.opening import open_artifact
from maag.cli import main
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.cases import Case
from maag.data.catalog import preset
from maag.errors import DataError, ExportError
from maag.evaluate.measure import evaluate, runner_predictor
from maag.evaluate.prediction_files import file_predictor, prediction_files
from maag.evaluate.report import Subject
from maag.inference import TorchRunner
from maag.models.build import build_segmentor
from maag.models.segmentor import Segmentor

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def config() -> Config:
    return override(preset("acdc", "fast"), {"data.size_px": [48, 32], "data.spacing_mm": 2.0, "segmentor.width": 4})


@pytest.fixture(scope="module")
def segmentor(config: Config) -> Segmentor:
    torch.manual_seed(0)
    segmentor = build_segmentor(config)
    for _ in range(20):  # Statistics of batch normalisation that differ from the initial ones.
        segmentor(torch.randn(4, 1, 48, 32))
    return segmentor


@pytest.fixture(scope="module")
def artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "artifact"
    sample = np.random.default_rng(3).normal(size=(3, 1, 48, 32)).astype(np.float32)
    export(segmentor, config, out, Source(checkpoint="best.safetensors", sha256="00"), {"a case": sample})
    return out


@pytest.fixture(scope="module")
def free_artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "free"
    source = Source(checkpoint="best.safetensors", sha256="00")
    export(segmentor, config, out, source, gates=True, dynamic_size=True)
    return out


@pytest.fixture(scope="module")
def int8_artifact(config: Config, segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "int8"
    calibration = np.random.default_rng(2).normal(size=(8, 1, 48, 32)).astype(np.float32)
    source = Source(checkpoint="best.safetensors", sha256="00")
    export(segmentor, config, out, source, precision="int8", calibration=calibration)
    return out


def test_the_artifact_is_whole_and_says_how_well_it_agrees(artifact: Path, config: Config) -> None:
    manifest = load_manifest(artifact)
    names = ["README.md", "manifest.json", "model.onnx", "model_card.md", "segment.py"]
    assert sorted(path.name for path in artifact.iterdir()) == names
    assert "| 2 | MYO | #fdd835 |" in (artifact / "README.md").read_text()
    assert "**What it is not**: a medical device" in (artifact / "model_card.md").read_text()
    assert manifest.config == config
    assert [row.inputs for row in manifest.parity] == ["noise-1", "noise-2", "noise-5", "phantoms", "blobs", "a case"]
    assert all(row.max_difference < 1e-4 and row.label_agreement == 1 for row in manifest.parity)


# Runs a program where nothing of maag, and none of what it is made of, can be imported.
ALONE = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("maag", "deploy", "tune", "torch", "monai", "pydantic", "click"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("kind", "same_voxels"),
    # In int8 the last bit of an intensity may turn a rounding, which moves single voxels along borders.
    [("artifact", 1.0), ("free_artifact", 1.0), ("int8_artifact", 0.97)],
)
def test_the_program_beside_the_model_needs_no_maag_and_agrees_voxel_for_voxel(
    kind: str, same_voxels: float, request: pytest.FixtureRequest, config: Config, tmp_path: Path
) -> None:
    artifact: Path = request.getfixturevalue(kind)
    random = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    opened = open_artifact(artifact, "cpu")
    for name, shape, spacing in (
        ("larger", (90, 80, 3), (1.4, 1.7, 8.0)),
        ("smaller", (20, 31, 2), (1.1, 1.2, 5.0)),
        ("as it is", (32, 48, 1), (2.0, 2.0, 10.0)),
        ("mixed", (101, 17, 2), (0.9, 3.3, 1.0)),
        ("one slice", (40, 33), (1.3, 1.2, 1.0)),
        ("cine", (26, 30, 2, 3), (1.5, 1.5, 9.0)),
    ):
        smooth = np.cumsum(np.cumsum(random.normal(size=shape), axis=0), axis=1).astype(np.float32)
        image = nibabel.Nifti1Image(smooth, np.diag([*spacing, 1.0]))
        nibabel.save(image, tmp_path / "in" / f"{name}.nii.gz")
    # The same as the last one in other words: its spacing in metres.
    image = nibabel.Nifti1Image(smooth, np.diag([*(mm / 1000 for mm in spacing), 1.0]))
    image.header.set_xyzt_units("meter", "sec")
    nibabel.save(image, tmp_path / "in" / "metres.nii.gz")
    predict([tmp_path / "in"], Threads(opened.runner), config.data, tmp_path / "out", opened.digest)
    for source in sorted((tmp_path / "in").iterdir()):
        alone = tmp_path / f"alone-{source.name}"
        words = [sys.executable, "-c", ALONE, str(artifact / "segment.py"), str(source), str(alone)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        one, other = nibabel.load(alone), nibabel.load(tmp_path / "out" / source.name)
        assert (np.asarray(one.dataobj) == np.asarray(other.dataobj)).mean() >= same_voxels, source.name
        np.testing.assert_array_equal(one.affine, other.affine)
        assert len(np.unique(one.dataobj)) > 1


def test_a_model_of_several_channels_is_used_as_its_readme_says(config: Config, tmp_path: Path) -> None:
    two = override(config, {"data.channels": 2, "data.dataset": "nnunet"})
    torch.manual_seed(3)
    segmentor = build_segmentor(two)
    for _ in range(5):
        segmentor(torch.randn(4, 2, 48, 32))
    artifact = tmp_path / "two"
    export(segmentor, two, artifact, Source(checkpoint="best.safetensors", sha256="00"))
    readme = (artifact / "README.md").read_text()
    assert "python segment.py IMAGE_0000.nii.gz IMAGE_0001.nii.gz LABELS.nii.gz" in readme
    assert "`X_0000.nii.gz`, `X_0001.nii.gz` are the channels of one image, whose labels are `X.nii.gz`" in readme
    random = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for name, shape in (("volume", (60, 50, 3)), ("cine", (40, 33, 2, 2)), ("slice", (41, 30))):
        for channel in range(2):
            smooth = np.cumsum(np.cumsum(random.normal(size=shape), axis=0), axis=1).astype(np.float32)
            image = nibabel.Nifti1Image(smooth, np.diag([1.4, 1.7, 8.0, 1.0]))
            nibabel.save(image, tmp_path / "in" / f"{name}_{channel:04}.nii.gz")
    opened = open_artifact(artifact, "cpu")
    outcome = predict([tmp_path / "in"], Threads(opened.runner), two.data, tmp_path / "out", opened.digest)
    assert (outcome.done, outcome.failed) == (3, ())
    program = [sys.executable, "-c", ALONE, str(artifact / "segment.py")]
    alone = tmp_path / "alone.nii.gz"
    for name in ("volume", "cine", "slice"):
        channels = [str(tmp_path / "in" / f"{name}_{channel:04}.nii.gz") for channel in range(2)]
        done = subprocess.run([*program, *channels, str(alone)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        one, other = nibabel.load(alone), nibabel.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
        assert len(np.unique(one.dataobj)) > 1
        turned = subprocess.run([*program, *channels[::-1], str(alone)], capture_output=True, text=True)
        assert turned.returncode == 0
        assert (np.asarray(nibabel.load(alone).dataobj) != np.asarray(other.dataobj)).any()
    before = Path(channels[1]).read_bytes()
    done = subprocess.run([*program, *channels, channels[1]], capture_output=True, text=True)
    assert (done.returncode, Path(channels[1]).read_bytes() == before) == (1, True)
    assert "the labels would replace the image" in done.stderr
    for words in ([channels[0]], [], [*channels, channels[0]]):
        done = subprocess.run([*program, *words, str(alone)], capture_output=True, text=True)
        assert done.returncode == 1
        assert f"{len(words)} images and where the labels go were given; this model takes 2" in done.stderr
    done = subprocess.run([*program, channels[0], str(tmp_path / "in" / "volume_0001.nii.gz"), str(alone)],
                          capture_output=True, text=True)  # fmt: skip
    assert "not on the grid of" in done.stderr


def test_fewer_bits_are_smaller_and_further_off(
    config: Config, segmentor: Segmentor, artifact: Path, int8_artifact: Path, tmp_path: Path
) -> None:
    source = Source(checkpoint="best.safetensors", sha256="00")
    whole = (artifact / "model.onnx").stat().st_size
    half = export(segmentor, config, tmp_path / "half", source, precision="fp16")
    assert half.precision == "fp16"
    assert (tmp_path / "half" / "model.onnx").stat().st_size < 0.75 * whole
    graph = onnx.load(tmp_path / "half" / "model.onnx").graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert all(node.input[1] in halves for node in graph.node if node.op_type.startswith("Conv"))
    assert max(row.max_difference for row in half.parity) > 1e-6
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {"images": 1, "probabilities": 1, "labels": 2}
    images = np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype(np.float32)
    assert open_artifact(tmp_path / "half", "cpu").runner(images).shape == (3, 4, 48, 32)

    eighth = load_manifest(int8_artifact)
    assert eighth.precision == "int8"
    model = onnx.load(int8_artifact / "model.onnx")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 10
    assert max(row.max_difference for row in eighth.parity) > max(row.max_difference for row in half.parity)
    with pytest.raises(ExportError, match="int8 needs slices to calibrate with"):
        export(segmentor, config, tmp_path / "none", source, precision="int8")
    assert not (tmp_path / "none").exists()


def test_a_precision_that_is_too_coarse_is_refused_or_falls_back(
    config: Config, segmentor: Segmentor, tmp_path: Path
) -> None:
    wild = copy.deepcopy(segmentor)
    last_norm = wild.decoder[0].second[1]  # type: ignore[index, union-attr]
    with torch.no_grad():  # the same function, by a weight that fp16 cannot hold
        last_norm.weight[0] *= 1e-6
        last_norm.bias[0] *= 1e-6
        wild.classify.weight[:, 0] *= 1e6
    source = Source(checkpoint="best.safetensors", sha256="00")
    with pytest.raises(ExportError, match="beyond fp16's 65504"):
        export(wild, config, tmp_path / "refused", source, precision="fp16")
    assert not (tmp_path / "refused").exists()
    manifest = export(wild, config, tmp_path / "fp32", source, precision="fp16", fall_back=True)
    assert (manifest.precision, manifest.fell_back_from) == ("fp32", "fp16")
    assert load_manifest(tmp_path / "fp32") == manifest


def test_the_graph_is_portable_and_tells_nothing_of_its_machine(artifact: Path) -> None:
    model = onnx.load(artifact / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not any(node.metadata_props for node in model.graph.node)
    assert b".py" not in (artifact / "model.onnx").read_bytes()


def test_the_segmentor_is_left_as_it_was(artifact: Path, segmentor: Segmentor) -> None:
    assert all(part.training for part in segmentor.modules())


def test_labels_leave_the_graph_as_uint8(artifact: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities, labels = session.run(
        None, {"images": np.random.default_rng(1).normal(size=(3, 1, 48, 32)).astype("f")}
    )
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))


def test_another_size_is_refused(artifact: Path) -> None:
    with pytest.raises(DataError, match=r"\(1, 48, 32\), got \(1, 32, 32\)"):
        open_artifact(artifact, "cpu").runner(np.zeros((1, 1, 32, 32), np.float32))


def test_predictions_of_the_artifact_are_those_of_the_segmentor(
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
    crew, data = Threads(opened.runner), opened.manifest.config.data
    outcome = predict([tmp_path / "scans"], crew, data, tmp_path / "out", opened.digest)
    assert (outcome.done, outcome.failed) == (2, ())

    subject = Subject(model="here", dataset="acdc", split="all")
    by_file = evaluate(
        cases, file_predictor(prediction_files(tmp_path / "out", cases), config.data), config.data, subject
    )
    by_torch = evaluate(cases, runner_predictor(TorchRunner(segmentor), config.data), config.data, subject)
    for score in ("dice", "hd95_mm"):
        assert by_file.mean(score) == pytest.approx(by_torch.mean(score), rel=1e-2)


def test_sigterm_ends_predict_as_ctrl_c_does_and_leaves_nothing_behind(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    long = np.random.default_rng(6).integers(0, 9, size=(64, 64, 30, 6)).astype(np.int16)
    for name in "abc":
        nibabel.save(nibabel.Nifti1Image(long, np.diag([2.0, 2.0, 8.0, 1.0])), tmp_path / "in" / f"{name}.nii.gz")
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def end_it() -> None:
        while not list(place.glob("*/fetched")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=end_it, daemon=True).start()
    try:
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(tmp_path / "in"), "--model", str(artifact), "--out", str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 1
    assert "Stopped." in capsys.readouterr().err
    # An interruption while a thread is being started leaves it out of those that the pool waits for; a process that
    # ends does wait for it.
    for thread in threading.enumerate():
        if thread.name.startswith("volume"):
            thread.join(timeout=60)
    assert not list(place.iterdir())
