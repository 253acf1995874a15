"""An artifact's manifest: round trip, older formats, damage."""

from __future__ import annotations

import hashlib
import json
import math
import re
import runpy
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from deploy.artifact.geometry import describe_geometry
from deploy.artifact.manifest import (
    Manifest,
    Parity,
    Source,
    labelled_classes,
    load_manifest,
    sha256_of,
    write_manifest,
)
from deploy.artifact.tensors import input_spec, output_specs, require_fitting
from deploy.exporting.companions import PROGRAM
from maag.config import codec
from maag.config.schema import Config
from maag.data.geometry import Grid, normalize
from maag.errors import CheckpointError, DataError, MissingDataError

Edit = Callable[[dict[str, object]], object]


def make_manifest(model: Path) -> Manifest:
    config = Config()
    return Manifest(
        opset=20,
        inputs=(input_spec(config),),
        outputs=output_specs(config),
        classes=labelled_classes(config),
        geometry=describe_geometry(config.data),
        config=config,
        config_digest=codec.digest(config),
        source=Source.of(Path("/home/someone/runs/one/checkpoints/best.safetensors"), "ab12", {"kind": "best"}),
        parity=(
            Parity(
                inputs="noise-1",
                num_slices=1,
                reference="torch-cpu",
                candidate="onnx-cpu",
                max_difference=1e-6,
                label_agreement=1.0,
                dice=None,
            ),
        ),
        files={"model.onnx": sha256_of(model)},
        versions={"maag": "0.1.0"},
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"weights")
    write_manifest(folder, make_manifest(folder / "model.onnx"))
    return folder


def test_manifest_survives_a_round_trip(artifact: Path) -> None:
    assert load_manifest(artifact) == make_manifest(artifact / "model.onnx")


def test_a_manifest_without_foreground_counts_opens(artifact: Path) -> None:
    path = artifact / "manifest.json"
    plain = json.loads(path.read_text())
    del plain["parity"][0]["foreground_pixels"]
    path.write_text(json.dumps(plain))
    assert load_manifest(artifact) == make_manifest(artifact / "model.onnx")


def test_the_manifest_is_plain_json_without_folders_of_its_machine(artifact: Path) -> None:
    text = (artifact / "manifest.json").read_text()
    plain = json.loads(text)
    assert plain["format_version"] == 2
    assert plain["config"]["data"]["classes"] == ["background", "RV", "MYO", "LV"]
    assert plain["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 1, 224, 224]}]
    assert [output["shape"] for output in plain["outputs"]] == [["batch", 4, 224, 224], ["batch", 224, 224]]
    assert plain["source"]["checkpoint"] == "one/checkpoints/best.safetensors"
    assert "someone" not in text


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            lambda plain: plain.update(format_version=1),
            "format_version is 1, but this maag reads 2; export the model again",
        ),
        (lambda plain: plain.pop("opset"), "opset"),
        (lambda plain: plain.update(extra=1), "extra"),
        (lambda plain: plain["config"]["data"].update(spacing_mm=1.0), "settings were edited"),
        (lambda plain: plain["geometry"].update(spacing_mm=1.0), "settings were edited"),
        (lambda plain: plain["geometry"]["to_grid"][0]["values"].update(a=-0.5), "it is from another version of maag"),
        (lambda plain: plain["geometry"]["to_source"].pop(), "it is from another version of maag"),
        (lambda plain: plain["geometry"].update(size_multiple=8), "it is from another version of maag"),
        (lambda plain: plain["geometry"].update(size_px=[64, 64]), "settings were edited"),
        (lambda plain: plain["config"]["data"].pop("spacing_mm"), "settings were edited"),
        (lambda plain: plain["classes"][1].update(colour=[0, 0, 0]), "settings were edited"),
        (lambda plain: plain["files"].update({"../../secret": "00"}), "not a plain file name"),
        (lambda plain: plain["files"].update({"gone.bin": "00"}), "gone.bin.*missing"),
    ],
)
def test_a_damaged_manifest_is_refused(artifact: Path, edit: Edit, sentence: str) -> None:
    path = artifact / "manifest.json"
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=sentence):
        load_manifest(artifact)


def test_an_export_without_newer_settings_and_with_old_wording_opens(artifact: Path) -> None:
    path = artifact / "manifest.json"
    plain = json.loads(path.read_text())
    assert plain["config"]["train"].pop("class_offsets") is not None
    canonical = json.dumps(plain["config"], sort_keys=True, separators=(",", ":"))
    plain["config_digest"] = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    plain["geometry"]["to_grid"][-1]["rule"] = "in the words of an earlier maag"
    path.write_text(json.dumps(plain))
    assert load_manifest(artifact).config == Config()


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_file_that_is_not_a_manifest_is_refused(artifact: Path, content: str) -> None:
    (artifact / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_manifest(artifact)


def test_a_changed_model_is_refused(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=r"model\.onnx: not the file that was exported"):
        load_manifest(artifact)


def test_a_folder_without_an_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="maag export"):
        load_manifest(tmp_path)


def test_classes_and_geometry_follow_the_configuration() -> None:
    config = codec.override(Config(), {"data.spacing_mm": 2.5, "data.size_px": [64, 48], "data.normalization": "unit"})
    geometry = describe_geometry(config.data)
    assert (geometry.spacing_mm, geometry.size_px, geometry.size_multiple) == (2.5, (64, 48), 16)
    steps = {step.name: step.values for step in geometry.to_grid}
    assert list(steps) == ["resize", "fit", "normalize"]
    assert steps["resize"]["spacing_mm"] == 2.5
    assert steps["fit"]["size_px"] == (64, 48)
    assert steps["normalize"]["normalization"] == "unit"
    assert [step.name for step in geometry.to_source] == ["fit", "resize", "label"]
    classes = labelled_classes(config)
    assert [one.name for one in classes] == list(config.data.classes)
    assert [one.value for one in classes] == [0, 1, 2, 3]
    assert len({one.colour for one in classes}) == 4


def test_each_normalisation_has_its_own_description() -> None:
    rules = {
        name: describe_geometry(codec.override(Config(), {"data.normalization": name}).data).to_grid[-1].rule
        for name in ("robust", "unit")
    }
    assert rules["unit"] == "x / 255"
    assert "(min(max(x, p5), p95) - p50) / width, where width is p75 - p25" in rules["robust"]


def test_the_described_size_tolerates_float32_spacings() -> None:
    data = codec.override(Config(), {"data.spacing_mm": 0.7}).data
    described = re.match(r"resize each slice to (.+) rows and columns", describe_geometry(data).to_grid[0].rule)
    assert described
    spacing = float(np.float32(0.7))
    names = {"n": 512, "spacing": spacing, "spacing_mm": 0.7, "floor": math.floor, "max": max}
    rows, _ = Grid.plan((512, 512), (spacing, spacing), 0.7, (512, 512)).resized_shape
    assert eval(described[1], {"__builtins__": {}}, names) == rows == 512


@pytest.mark.parametrize("background_value", [None, 0.0, 1000.3])
def test_the_standalone_script_normalises_like_the_package(background_value: float | None) -> None:
    standalone_normalise = runpy.run_path(str(files("deploy.exporting") / "standalone" / PROGRAM))["normalise"]
    voxels = np.random.default_rng(0).normal(700, 90, (2, 40, 40)).astype(np.float32)
    if background_value is not None:
        voxels[:, 10:] = background_value
    np.testing.assert_array_equal(standalone_normalise(voxels, "robust"), normalize(voxels))
    if background_value is not None:
        voxels[:] = background_value
        assert not standalone_normalise(voxels, "robust").any()


def test_a_change_far_into_a_large_file_is_refused(artifact: Path) -> None:
    model = artifact / "model.onnx"
    content = bytearray(3 << 20)
    model.write_bytes(content)
    write_manifest(artifact, make_manifest(model))
    load_manifest(artifact)
    assert sha256_of(model) == hashlib.sha256(content).hexdigest()
    content[-1] = 1
    model.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        load_manifest(artifact)


def test_the_source_includes_what_training_stored_with_the_checkpoint() -> None:
    info = {"kind": "final", "split_digest": "s", "shortfalls": {"LV": 1.5}, "orientations": ["LPS", "RAS"]}
    source = Source.of(Path("best.safetensors"), "ab12", info)
    assert (source.kind, source.split_digest, source.shortfalls) == ("final", "s", {"LV": 1.5})
    assert source.orientations == ("LPS", "RAS")
    assert Source.of(Path("best.safetensors"), "ab12", {"orientations": []}).orientations == ()
    assert Source.of(Path("best.safetensors"), "ab12", {}).orientations is None


@pytest.mark.parametrize("shape", [(1, 1, 0, 32), (1, 1, 24, 32), (1, 2, 32, 32), (1, 1, 32)])
def test_images_that_do_not_fit_a_model_of_dynamic_size_are_refused(shape: tuple[int, ...]) -> None:
    spec = input_spec(Config(), dynamic_size=True)
    require_fitting(np.zeros((1, 1, 48, 32), np.float32), spec)
    with pytest.raises(DataError):
        require_fitting(np.zeros(shape, np.float32), spec)


def test_gate_outputs_are_ordered_by_level_and_sized_by_level() -> None:
    config = codec.override(Config(), {"gates.levels": [2, 0, 1], "data.size_px": [64, 32]})
    specs = output_specs(config, gates=True)[2:]
    assert [(spec.name, spec.shape[2:]) for spec in specs] == [
        ("gates_0", (64, 32)),
        ("gates_1", (32, 16)),
        ("gates_2", (16, 8)),
    ]
