"""Which networks are averaged into one model, and what its manifest, card and README record about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_artifact import CONFIG, tiny_manifest, write_tiny_artifact

from deploy.artifact.manifest import Source, load_manifest, write_manifest
from deploy.exporting.companions import CARD, README, write_companions
from deploy.exporting.ensembles import average_of
from maag.checkpoint import TrainedSegmentor
from maag.config.codec import override
from maag.errors import ConfigError
from maag.models.build import build_segmentor

LPS: dict[str, Any] = {"orientations": ["LPS"]}


def network(name: str, changes: Mapping[str, Any] = {}, info: Mapping[str, Any] = LPS) -> TrainedSegmentor:
    config = override(CONFIG, {"segmentor.width": 2, **changes})
    path = Path("/home/someone/runs", name, "checkpoints", "best.safetensors")
    trained = {"kind": "best", "split_digest": "s", "shortfalls": {"bright": 1.5}, **info}
    return TrainedSegmentor(build_segmentor(config), config, trained, path, f"digest-of-{name}")


def source_of(*networks: TrainedSegmentor) -> Source:
    return average_of(networks)[1]


def test_the_source_names_each_network_and_omits_their_shortfalls() -> None:
    networks = [network("a"), network("b", {"segmentor.width": 4})]
    ensemble, source = average_of(networks)
    assert list(ensemble.networks) == [each.segmentor for each in networks]
    assert source.checkpoint == "average of 2 networks"
    assert [(each.checkpoint, each.sha256) for each in source.members] == [
        ("a/checkpoints/best.safetensors", "digest-of-a"),
        ("b/checkpoints/best.safetensors", "digest-of-b"),
    ]
    assert [each.config for each in source.members] == [each.config for each in networks]
    assert (source.kind, source.split_digest, source.orientations) == ("best", "s", ("LPS",))
    assert source.shortfalls is None
    assert source.sha256 != source_of(network("a"), network("c")).sha256


def test_a_field_in_which_the_networks_differ_is_none_in_the_source() -> None:
    source = source_of(network("a"), network("b", info={**LPS, "kind": "final", "split_digest": "t"}))
    assert (source.kind, source.split_digest) == (None, None)
    assert [(each.kind, each.split_digest) for each in source.members] == [("best", "s"), ("final", "t")]


@pytest.mark.parametrize(
    ("setting", "value", "ours", "theirs"),
    [
        ("dataset", "nnunet", "acdc", "nnunet"),
        ("classes", ["background", "dark"], "bright", "dark"),
        ("channels", 2, "1", "2"),
        ("modality", "t2spir", "t1in", "t2spir"),
        ("spacing_mm", 2.0, "1.51", "2.0"),
        ("size_px", [32, 32], "(16, 32)", "(32, 32)"),
        ("normalization", "unit", "robust", "unit"),
    ],
)
def test_networks_for_other_images_or_classes_are_refused(setting: str, value: Any, ours: str, theirs: str) -> None:
    with pytest.raises(ConfigError) as caught:
        average_of([network("a"), network("b"), network("c", {f"data.{setting}": value})])
    before, _, after = str(caught.value).partition(", and ")
    assert "runs/a/checkpoints/best.safetensors was trained with" in before
    assert f"data.{setting}=" in before
    assert ours in before
    assert "runs/c/checkpoints/best.safetensors" in after
    assert theirs in after


@pytest.mark.slow
def test_networks_of_other_widths_seeds_and_supervision_are_accepted() -> None:
    changes = {"segmentor.width": 6, "train.seed": 7, "data.supervision": "dense", "data.split_seed": 3}
    assert len(source_of(network("a"), network("b", changes)).members) == 2


def test_the_same_network_twice_is_refused() -> None:
    copied = network("copy")._replace(digest="digest-of-a")
    with pytest.raises(ConfigError, match=r"runs/a/.* and .*runs/copy/.* are the same network"):
        average_of([network("a"), network("b"), copied])


@pytest.mark.parametrize(
    ("each", "common"),
    [
        ([["LPS", "RAS"], ["RAS", "LPS"]], ("LPS", "RAS")),
        ([["LPS", "RAS"], ["RAS"]], ("RAS",)),  # an LPS image would be seen mirrored by the second
        ([["LPS", "RAS"], ["LPI"]], ("LPS",)),  # the order of slices does not count
        ([["LPS"], []], ("LPS",)),
        ([["LPS"], None], ("LPS",)),
        ([[], []], ()),
        ([[], None], None),
    ],
)
def test_orientations_are_those_that_all_networks_know(
    each: list[list[str] | None], common: tuple[str, ...] | None
) -> None:
    networks = [
        network(str(number), info={} if orientations is None else {"orientations": orientations})
        for number, orientations in enumerate(each)
    ]
    assert source_of(*networks).orientations == common


def test_networks_without_a_common_orientation_are_refused() -> None:
    networks = [network("a"), network("b", info={"orientations": ["RAS", "LAS"]})]
    with pytest.raises(ConfigError, match=r"runs/a/checkpoints/best.safetensors: LPS; .*runs/b/.*: RAS or LAS\)"):
        average_of(networks)


def test_the_manifest_of_an_ensemble_survives_a_round_trip_and_others_have_no_members(tmp_path: Path) -> None:
    write_tiny_artifact(tmp_path)
    assert "members" not in json.loads((tmp_path / "manifest.json").read_text())["source"]
    manifest = replace(tiny_manifest(tmp_path), source=source_of(network("a"), network("b")))
    write_manifest(tmp_path, manifest)
    assert load_manifest(tmp_path) == manifest


def test_card_and_readme_describe_each_network(tmp_path: Path) -> None:
    manifest = write_tiny_artifact(tmp_path)
    residual = {"segmentor.width": 4, "segmentor.residual_blocks": [1, 2, 0, 2], "data.supervision": "dense"}
    info = {**LPS, "kind": "final", "split_digest": "t"}
    source = source_of(network("a"), network("b", {**residual, "gates.levels": [0, 1]}, info))
    write_companions(tmp_path, replace(manifest, source=source))
    card, readme = (" ".join((tmp_path / name).read_text().split()) for name in (CARD, README))
    assert "the average of 2 networks, fp32" in card
    assert (
        "1. `a/checkpoints/best.safetensors` (best), SHA-256 `digest-of-a`, split `s`; adversarial attention gates at "
        "levels [0], width 2; trained with weak supervision."
    ) in card
    assert (
        "2. `b/checkpoints/best.safetensors` (final), SHA-256 `digest-of-b`, split `t`; adversarial attention gates at "
        "levels [0, 1], width 4, residual blocks [1, 2, 0, 2] in its encoder; trained with dense supervision."
    ) in card
    assert "averages the class probabilities of 2 networks" in readme
    assert (
        "`maag predict` does not correct it for overconfidence, as an average of several networks has no correction; "
    ) in card
    corrected = replace(manifest.source, shortfalls={"bright": 1.5})
    write_companions(tmp_path, replace(manifest, source=corrected))
    assert "Expected Dice" not in (tmp_path / CARD).read_text()
    for none in ({}, None):
        write_companions(tmp_path, replace(manifest, source=replace(manifest.source, shortfalls=none)))
        assert "as none was measured; only" in (tmp_path / CARD).read_text()
    assert "average" not in (tmp_path / CARD).read_text() + (tmp_path / README).read_text()
