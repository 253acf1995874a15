"""Which backend opens a MODEL on the command line, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_artifact import CONFIG, tiny_manifest, write_tiny_artifact

from deploy.artifact.manifest import Member, write_manifest
from maag.checkpoint import save_segmentor
from maag.cli import main
from maag.cli.models import Network, open_model, read_own_split, warn_of_views
from maag.config.codec import override
from maag.data.splits import Split
from maag.errors import ConfigError, MissingDataError
from maag.inference import Refinement
from maag.models.build import build_segmentor
from maag.storage import write_json


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_tiny_artifact(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    config = override(CONFIG, {"segmentor.width": 2})
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    path.parent.mkdir(parents=True)
    save_segmentor(path, config, build_segmentor(config).state_dict(), {"kind": "best"})
    return path


def test_exported_model_runs_with_onnx_runtime_and_gives_the_reason(artifact: Path) -> None:
    opened = open_model(artifact, "cpu")
    assert opened.runner.name == "onnx-cpu"
    assert opened.reason == "ONNX Runtime on the CPU: --device is cpu"
    if not torch.cuda.is_available():
        assert open_model(artifact, "auto", "onnx").reason == "ONNX Runtime on the CPU: no GPU found"


def test_run_folder_and_weights_run_with_pytorch(weights: Path) -> None:
    for model in (weights, weights.parent.parent):
        for backend in ("auto", "torch"):
            opened = open_model(model, "cpu", backend)
            assert opened.runner.name == "torch-cpu"
            assert opened.reason.startswith("PyTorch on the CPU: ")


def test_the_split_is_found_from_inside_the_folder_of_the_model(
    artifact: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, model, place in (
        (artifact, Path(), artifact.parent),
        (artifact / "..", Path("model"), artifact.parent),
        (weights.parent, Path("best.safetensors"), weights.parent.parent),
        (weights.parent, Path("..") / "checkpoints" / "best.safetensors", weights.parent.parent),
        (weights.parent, Path(".."), weights.parent.parent),
    ):
        monkeypatch.chdir(folder)
        assert open_model(model, "cpu").split_file is None
        write_json(place / "split.json", {})
        found = open_model(model, "cpu").split_file
        assert found is not None
        assert found.samefile(place / "split.json")
        (place / "split.json").unlink()


def test_backend_unsuitable_for_the_model_is_refused(artifact: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is an exported model, but --backend torch needs"):
        open_model(artifact, "cpu", "torch")
    for backend in ("onnx", "tensorrt"):
        with pytest.raises(ConfigError, match="is not an exported model; make one with `maag export"):
            open_model(weights, "cpu", backend)
        with pytest.raises(MissingDataError):
            open_model(tmp_path / "nowhere", "cpu", backend)
    with pytest.raises(ConfigError, match="needs a GPU, but --device is cpu"):
        open_model(artifact, "cpu", "tensorrt")


def make_ensemble(artifact: Path, *digests: str | None, changes: tuple[dict[str, Any], ...] = ()) -> None:
    """Name networks that were trained on splits with these digests, and with these changed settings."""
    configs = [override(CONFIG, change) for change in changes or ({},) * len(digests)]
    members = tuple(
        Member(checkpoint=f"{number}.safetensors", sha256="00", kind="best", split_digest=digest, config=config)
        for number, (digest, config) in enumerate(zip(digests, configs, strict=True))
    )
    manifest = tiny_manifest(artifact)
    write_manifest(artifact, replace(manifest, source=replace(manifest.source, members=members)))


@pytest.mark.parametrize(
    ("digests", "known"), [(("s", "t", "s"), ("s", "t")), ((None, "s"), ("s",)), ((None,) * 2, ())]
)
def test_an_ensemble_knows_the_splits_of_its_networks(
    artifact: Path, digests: tuple[str | None, ...], known: tuple[str, ...]
) -> None:
    make_ensemble(artifact, *digests)
    opened = open_model(artifact, "cpu")
    assert opened.split_digests == known
    assert [each.checkpoint for each in opened.networks] == [f"{number}.safetensors" for number in range(len(digests))]


def test_a_split_that_any_network_was_trained_on_is_accepted(artifact: Path, tmp_path: Path) -> None:
    first, second, other = (Split(scheme=name, scribbled=(name,)) for name in ("first", "second", "other"))
    for split in (first, second, other):
        write_json(tmp_path / f"{split.scheme}.json", split.to_dict())
    make_ensemble(artifact, first.digest, second.digest)
    opened = open_model(artifact, "cpu")
    for split in (first, second):
        assert read_own_split(opened, tmp_path / f"{split.scheme}.json") == split
    with pytest.raises(ConfigError, match=f"was trained on split {first.digest} and {second.digest}"):
        read_own_split(opened, tmp_path / "other.json")
    make_ensemble(artifact, None, None)
    assert read_own_split(open_model(artifact, "cpu"), tmp_path / "other.json") == other


FOLDS = tuple({"data.folds": 5, "data.fold": fold} for fold in (1, 2))


@pytest.mark.parametrize(
    ("digests", "changes", "refused"),
    [
        (("s", "t"), FOLDS, ["val"]),
        (("s", "t"), ({}, {"data.split_seed": 1}), ["val", "test"]),
        (("s", "t"), (FOLDS[0], {**FOLDS[1], "data.split_seed": 1}), ["val", "test"]),
        (("s", "t"), ({}, {}), ["val", "test"]),
        (("s", "s"), ({}, {}), []),
    ],
)
def test_an_ensemble_is_not_evaluated_on_patients_who_may_have_trained_it(
    digests: tuple[str, ...],
    changes: tuple[dict[str, Any], ...],
    refused: list[str],
    artifact: Path,
    phantom_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_ensemble(artifact, *digests, changes=changes)
    for part in ("val", "test"):
        with pytest.raises(SystemExit):
            main(["evaluate", str(artifact), "--dataset", "acdc", "--data", str(phantom_dir), "--split", part])
        error = capsys.readouterr().err
        if part in refused:
            assert f"--split {part}: this model averages networks that were trained on 2 splits" in error
            assert ("or use --split test" in error) == (refused == ["val"])
        else:
            assert f"--split {part}: there is no split.json next to this model" in error


def test_a_single_network_is_not_an_ensemble(artifact: Path, weights: Path) -> None:
    for model in (artifact, weights):
        opened = open_model(model, "cpu")
        assert (len(opened.networks), opened.split_digests) == (1, ())


@pytest.mark.parametrize(
    ("training", "refinement", "warnings"),
    [
        ({"augment.flip": 0.0}, Refinement(flips=True), ["mirrored images (augment.flip=0): --flips"]),
        ({"augment.flip": 0.5}, Refinement(flips=True), []),
        (
            {"augment.rotation_deg": 20.0},
            Refinement(rotations=True),
            ["images rotated by 30° (augment.rotation_deg=20): --rotations"],
        ),
        ({"augment.rotation_deg": 30.0}, Refinement(rotations=True), []),
        ({"augment.flip": 0.0, "augment.rotation_deg": 0.0}, Refinement(), []),
    ],
)
def test_refinements_absent_from_training_augmentation_are_warned_about(
    training: dict[str, float], refinement: Refinement, warnings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_views(Path("runs/a"), [Network("best.safetensors", override(CONFIG, training))], refinement)
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.count("trained without") == len(warnings)
    assert all(f"trained without {warning} may make its labels worse" in printed for warning in warnings)


def test_each_averaged_network_that_was_trained_without_a_view_is_named(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ((0.5, 30.0), (0.0, 20.0), (0.5, 0.0))
    changes = tuple({"augment.flip": flip, "augment.rotation_deg": degrees} for flip, degrees in settings)
    make_ensemble(artifact, "s", "s", "s", changes=changes)
    networks = open_model(artifact, "cpu").networks
    averaging = f"{artifact} averages 3 networks, and training had no"
    warnings = {
        Refinement(flips=True): f"{averaging} mirrored images for 1.safetensors (augment.flip=0): --flips may",
        Refinement(rotations=True): (
            f"{averaging} images rotated by 30° for 1.safetensors (augment.rotation_deg=20), 2.safetensors "
            "(augment.rotation_deg=0): --rotations may"
        ),
    }
    for refinement, warning in warnings.items():
        warn_of_views(artifact, networks, refinement)
        printed = capsys.readouterr().err
        assert "".join(warning.split()) in "".join(printed.split())  # wrapped at any place
        warn_of_views(artifact, networks[:1], refinement)
        assert capsys.readouterr().err == ""
