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
from deploy.artifact.tensors import input_spec, output_specs
from deploy.exporting.companions import PROGRAM
from maag.config import codec
from maag.config.schema import Config
from maag.data.geometry import Grid, normalize
from maag.errors import CheckpointError, MissingDataError

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


def test_a_manifest_of_before_foreground_was_counted_opens(artifact: Path) -> None:
    path = artifact / "manifest.json"
    plain = json.loads(path.read_text())
    del plain["parity"][0]["foreground_pixels"]
    path.write_text(json.dumps(plain))
    assert load_manifest(artifact) == make_manifest(artifact / "model.onnx")


def test_manifest_is_plain_and_tells_no_folder_of_its_machine(artifact: Path) -> None:
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


def test_an_export_of_before_some_settings_and_in_other_words_still_opens(artifact: Path) -> None:
    path = artifact / "manifest.json"
    plain = json.loads(path.read_text())
    assert plain["config"]["train"].pop("class_offsets") is not None
    canonical = json.dumps(plain["config"], sort_keys=True, separators=(",", ":"))
    plain["config_digest"] = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    plain["geometry"]["to_grid"][-1]["rule"] = "in the words of an earlier maag"
    path.write_text(json.dumps(plain))
    assert load_manifest(artifact).config == Config()


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_manifest_that_is_none_is_refused(artifact: Path, content: str) -> None:
    (artifact / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_manifest(artifact)


def test_a_changed_model_is_refused(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=r"model\.onnx: not the file that was exported"):
        load_manifest(artifact)


def test_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="maag export"):
        load_manifest(tmp_path)


def test_classes_and_geometry_are_the_configurations() -> None:
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


def test_each_normalisation_is_described_in_its_own_words() -> None:
    rules = {
        name: describe_geometry(codec.override(Config(), {"data.normalization": name}).data).to_grid[-1].rule
        for name in ("robust", "unit")
    }
    assert rules["unit"] == "x / 255"
    assert "(min(max(x, p5), p95) - p50) / width, where width is p75 - p25" in rules["robust"]


def test_the_described_size_forgives_spacings_of_32_bits() -> None:
    data = codec.override(Config(), {"data.spacing_mm": 0.7}).data
    said = re.match(r"resize each slice to (.+) rows and columns", describe_geometry(data).to_grid[0].rule)
    assert said
    spacing = float(np.float32(0.7))
    names = {"n": 512, "spacing": spacing, "spacing_mm": 0.7, "floor": math.floor, "max": max}
    rows, _ = Grid.plan((512, 512), (spacing, spacing), 0.7, (512, 512)).resized_shape
    assert eval(said[1], {"__builtins__": {}}, names) == rows == 512


@pytest.mark.parametrize("ground", [None, 0.0, 1000.3])
def test_the_script_beside_a_model_normalises_as_the_package_does(ground: float | None) -> None:
    alone = runpy.run_path(str(files("deploy.exporting") / "standalone" / PROGRAM))["normalise"]
    voxels = np.random.default_rng(0).normal(700, 90, (2, 40, 40)).astype(np.float32)
    if ground is not None:
        voxels[:, 10:] = ground
    np.testing.assert_array_equal(alone(voxels, "robust"), normalize(voxels))
    if ground is not None:
        voxels[:] = ground
        assert not alone(voxels, "robust").any()
