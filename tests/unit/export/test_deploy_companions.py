"""How an exported model's README describes the images it takes, and its card the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_artifact import write_tiny_artifact

from deploy.exporting.companions import CARD, README, write_companions
from maag.config.codec import override

NOT_ADVERSARIAL = {"loss.adversarial": 0, "loss.adversarial_unlabelled": 0}


@pytest.mark.parametrize(
    ("dataset", "channels", "included", "excluded"),
    [
        ("acdc", 1, (), ("160 x 80 mm", "X_0000", "olour picture")),
        ("ppss", 3, ("a picture is assumed to measure 160 x 80 mm", "colour pictures; grey ones"), ("X_0000",)),
        ("nnunet", 3, ("`X_0002.nii.gz` are the channels of one", "A colour picture holds all three"), ("160 x",)),
        (
            "nnunet",
            2,
            ("`X_0001.nii.gz` are the channels of one", "joined, and their labels are `X.png`"),
            ("olour picture",),
        ),
        ("folders", 2, ("`X_0001.nii.gz` are the channels of one",), ("X.png",)),
    ],
)
def test_the_readme_describes_the_expected_images(
    tmp_path: Path, dataset: str, channels: int, included: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    manifest = write_tiny_artifact(tmp_path)
    data = replace(manifest.config.data, dataset=dataset, channels=channels)
    write_companions(tmp_path, replace(manifest, config=replace(manifest.config, data=data)))
    readme = (tmp_path / README).read_text()
    assert all(words in readme for words in included)
    assert not any(words in readme for words in excluded)


def test_the_readme_states_the_training_orientations_if_they_are_known(tmp_path: Path) -> None:
    manifest = write_tiny_artifact(tmp_path)
    for orientations, expected in ((("LPS", "LAI"), True), ((), False), (None, False)):
        write_companions(tmp_path, replace(manifest, source=replace(manifest.source, orientations=orientations)))
        readme = (tmp_path / README).read_text()
        assert ("have orientation LPS or LAI" in readme) is expected
        assert ("--reorient" in readme) is expected


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ({}, "a U-Net with adversarial attention gates at levels [0],"),
        (NOT_ADVERSARIAL, "a U-Net with attention gates at levels [0],"),
        ({**NOT_ADVERSARIAL, "gates.levels": []}, "a U-Net with no attention gates,"),
    ],
)
def test_the_card_describes_the_gates_that_there_are(tmp_path: Path, changes: dict[str, Any], described: str) -> None:
    manifest = write_tiny_artifact(tmp_path)
    write_companions(tmp_path, replace(manifest, config=override(manifest.config, changes)))
    assert described in (tmp_path / CARD).read_text()


def test_the_card_says_that_another_precision_was_requested(tmp_path: Path) -> None:
    manifest = write_tiny_artifact(tmp_path)
    write_companions(tmp_path, replace(manifest, fell_back_from="int8"))
    assert ", fp32, as int8 differed too much from PyTorch;" in (tmp_path / CARD).read_text()
