"""Random draws for a training batch, each independent of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.scribbles.raters import FULL_WEIGHT
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.shard import Shard
from maag.data.slices.supervision import Supervision, supervise
from maag.data.splits import Split
from maag.errors import ConfigError
from maag.labels import IGNORE

CPU = torch.device("cpu")
NO_AUGMENTATION = {
    f"augment.{name}": 0 for name in ("rotation_deg", "translation", "scale", "flip", "brightness", "contrast", "noise")
}


@pytest.fixture
def supervision(tiny_config: Config, prepared: PreparedData, split: Split) -> Supervision:
    return supervise(prepared, split, tiny_config)


def batches_of(supervision: Supervision, config: Config, changes: Mapping[str, Any]) -> TrainingBatches:
    """Batches without augmentation and of one slice, unless `changes` says otherwise."""
    return TrainingBatches(
        supervision, codec.override(config, {**NO_AUGMENTATION, "optim.batch_size": 1, **changes}), CPU
    )


@pytest.mark.parametrize("change", [{"rotation_deg": 30.0}, {"noise": 0.1}, {"brightness": 0.5}])
def test_a_slice_is_augmented_differently_in_each_step(
    tiny_config: Config, supervision: Supervision, change: dict[str, float]
) -> None:
    one_slice = replace(supervision, scribbled=supervision.scribbled[:1])
    batches = batches_of(one_slice, tiny_config, {f"augment.{name}": value for name, value in change.items()})
    images = [batches.at(step).images for step in range(3)]
    original = torch.from_numpy(supervision.images[supervision.scribbled[:1]])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(images[one], images[other])
    assert all(image.shape == original.shape and not torch.equal(image, original) for image in images)


@pytest.mark.parametrize("unlabelled", [0.0, 0.2])
def test_unpaired_masks_are_rotated_independently_of_the_slices(
    tiny_config: Config, supervision: Supervision, unlabelled: float
) -> None:
    """Otherwise a mask of the same patient would be aligned with its image."""
    lines = np.zeros_like(supervision.masks)
    lines[:, 14:18] = 1
    first = supervision.scribbled[:1]
    same_labels = replace(
        supervision, scribbles=lines, masks=lines, shapes=lines, scribbled=first, unlabelled=first, real=first
    )
    rotation = {"augment.rotation_deg": 180.0, "augment.fill": "background"}
    batches = batches_of(same_labels, tiny_config, {**rotation, "loss.adversarial_unlabelled": unlabelled})
    for step in range(3):
        batch = batches.at(step)
        assert batch.masks is not None
        assert batch.masks.any()
        assert not torch.equal(batch.masks, batch.labels)
    # Without rotation they are equal.
    batch = batches_of(same_labels, tiny_config, {}).at(0)
    assert batch.masks is not None
    assert torch.equal(batch.masks, batch.labels)


def test_the_adversarial_term_shuffles_its_slices_independently(tiny_config: Config, supervision: Supervision) -> None:
    batches = batches_of(supervision, tiny_config, {"loss.adversarial_unlabelled": 0.2})
    images, others = [], []
    for step in range(len(supervision.scribbled)):
        batch = batches.at(step)
        assert batch.unlabelled is not None
        images.append(batch.images.numpy().tobytes())
        others.append(batch.unlabelled.numpy().tobytes())
    assert sorted(images) == sorted(others)
    assert images != others


@pytest.mark.parametrize(("fill", "outside"), [("ignore", IGNORE), ("background", 0)])
@pytest.mark.parametrize("change", [{"translation": 0.5}, {"scale": 0.5}])
def test_pixels_from_outside_the_slice_get_the_configured_label(
    tiny_config: Config, supervision: Supervision, fill: str, outside: int, change: dict[str, float]
) -> None:
    full = replace(supervision, scribbles=np.full_like(supervision.masks, 2))
    changes = {"augment.fill": fill, **{f"augment.{name}": value for name, value in change.items()}}
    batches = batches_of(full, tiny_config, changes)
    seen = torch.cat([batches.at(step).labels for step in range(4)])
    assert seen.unique().tolist() == sorted((2, outside))


def test_background_from_outside_the_slice_has_full_weight_despite_rater_weights(
    tiny_config: Config, supervision: Supervision
) -> None:
    strokes, fifth = np.full_like(supervision.masks, 2), np.full_like(supervision.masks, FULL_WEIGHT // 5)
    weighted = replace(supervision, scribbles=strokes, scribble_weights=fifth)
    batches = batches_of(weighted, tiny_config, {"augment.fill": "background", "augment.translation": 0.5})
    for step in range(4):
        batch = batches.at(step)
        assert batch.label_weights is not None
        torch.testing.assert_close(batch.label_weights, torch.where(batch.labels == 2, 0.2, 1.0))


def numbered_slices(supervision: Supervision, *, scribbled: int, dense: int) -> Supervision:
    """`scribbled` slices with scribbles, then `dense` with masks; each pixel holds its slice's number."""
    numbers = np.arange(scribbled + dense)
    images = np.broadcast_to(numbers.astype(np.float32)[:, None, None, None], (len(numbers), 1, 32, 32))
    labels = images[:, 0].astype(np.uint8)
    parts = {"scribbled": numbers[:scribbled], "dense": numbers[scribbled:], "unlabelled": numbers[:0]}
    return replace(supervision, images=images, scribbles=labels, masks=labels, **parts)


def test_an_epoch_of_mixed_batches_sees_every_scribble_and_mask_once(
    tiny_config: Config, supervision: Supervision
) -> None:
    changes = {"optim.batch_size": 4, "optim.dense_ratio": 0.25}
    batches = batches_of(numbered_slices(supervision, scribbled=15, dense=5), tiny_config, changes)
    seen = torch.stack([batches.at(step).labels[:, 0, 0] for step in range(5)])
    assert sorted(seen[:, :3].flatten().tolist()) == list(range(15))
    assert sorted(seen[:, 3].tolist()) == list(range(15, 20))
    assert batches.steps_per_epoch == 5


def test_the_adversarial_term_also_sees_slices_with_masks(tiny_config: Config, supervision: Supervision) -> None:
    changes = {"optim.batch_size": 2, "loss.adversarial_unlabelled": 0.2}
    batches = batches_of(numbered_slices(supervision, scribbled=4, dense=6), tiny_config, changes)
    seen: list[float] = []
    for step in range(5):
        others = batches.at(step).unlabelled
        assert others is not None
        seen += others[:, 0, 0, 0].tolist()
    assert sorted(seen) == list(range(10))


def test_a_worker_without_a_slice_in_each_batch_is_refused(supervision: Supervision, tiny_config: Config) -> None:
    config = codec.override(tiny_config, {"optim.batch_size": 2})
    TrainingBatches(supervision, config, torch.device("cpu"), Shard(1, 2))
    with pytest.raises(ConfigError, match="3 workers cannot share batches of 2 slices"):
        TrainingBatches(supervision, config, torch.device("cpu"), Shard(1, 3))
