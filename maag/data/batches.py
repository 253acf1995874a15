"""Training batches from the prepared set, resident on the device and augmented there.

Every draw is a function of (seed, step): a run that stops at any step and resumes sees the same batches, without any
generator state to keep, and so does a run on another number of workers.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maag.config.schema import Config
from maag.data.augment import change_intensities, random_affines, warp_images, warp_labels
from maag.data.cache import PreparedData
from maag.data.splits import Split
from maag.errors import SplitError
from maag.labels import BACKGROUND, IGNORE


class Batch(NamedTuple):
    """What one training step sees."""

    images: Tensor
    """(N, C, H, W) float32: supervised slices."""
    labels: Tensor
    """(N, H, W) uint8: their scribbles or masks, IGNORE where nothing is known."""
    unlabelled: Tensor | None
    """(N, C, H, W) float32: further slices for the adversarial term, if it has a weight."""
    masks: Tensor | None
    """(N, H, W) uint8: real, unpaired masks for the discriminator, if there is one."""


class SliceSource:
    """An endless shuffled stream of some slices: each pass over them is a new permutation."""

    def __init__(self, indices: np.ndarray, seed: int, name: str) -> None:
        self._indices = indices
        self._seed = seed
        self._name = name

    def __len__(self) -> int:
        return len(self._indices)

    def draw(self, start: int, count: int) -> np.ndarray:
        """Slices number `start` to `start + count` of the stream: (count,) int64 indices of the prepared set."""
        places = np.arange(start, start + count)
        orders = {int(turn): self._order(int(turn)) for turn in np.unique(places // len(self))}
        return np.array([orders[int(place // len(self))][place % len(self)] for place in places])

    def _order(self, turn: int) -> np.ndarray:
        return np.random.default_rng(seed_of(self._seed, self._name, turn)).permutation(self._indices)


class TrainingBatches:
    """The training part of a split as batches on `device`."""

    def __init__(self, prepared: PreparedData, split: Split, config: Config, device: torch.device) -> None:
        dense = config.data.supervision == "masks"
        supervised = prepared.slices_of(split.scribbled, masked=dense, scribbled=not dense)
        self._require(supervised, "masks" if dense else "scribbles", "the training patients")
        self._config = config
        self._device = device
        self._generator = torch.Generator(device)
        self._fill = BACKGROUND if config.augment.fill == "background" else IGNORE
        seed = config.train.seed
        self._supervised = SliceSource(supervised, seed, "supervised")
        self._unlabelled = SliceSource(supervised, seed, "unlabelled") if config.loss.adversarial_unlabelled else None
        self._shapes = None
        if config.adversarial:
            shapes = prepared.slices_of(split.shapes, masked=True)
            self._require(shapes, "masks", "the discriminator's patients")
            self._shapes = SliceSource(shapes, seed, "shapes")
        self._images = torch.from_numpy(np.array(prepared.images)).to(device)
        self._labels = torch.from_numpy(np.array(prepared.masks if dense else prepared.scribbles)).to(device)
        self._masks = torch.from_numpy(np.array(prepared.masks)).to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the supervised slices are seen about once."""
        return max(1, round(len(self._supervised) / self._config.optim.batch_size))

    def at(self, step: int) -> Batch:
        """The batch of training step `step`, counted from 0."""
        count, size_px = self._config.optim.batch_size, self._config.data.size_px
        augment = self._config.augment
        start = step * count
        generator = self._generator.manual_seed(seed_of(self._config.train.seed, "augment", step))

        chosen = self._on_device(self._supervised.draw(start, count))
        affines = random_affines(count, size_px, augment, generator)
        images = change_intensities(warp_images(self._images[chosen], affines), augment, generator)
        labels = warp_labels(self._labels[chosen], affines, fill=self._fill)

        unlabelled = masks = None
        if self._unlabelled:
            others = self._images[self._on_device(self._unlabelled.draw(start, count))]
            affines = random_affines(count, size_px, augment, generator)
            unlabelled = change_intensities(warp_images(others, affines), augment, generator)
        if self._shapes:
            real = self._masks[self._on_device(self._shapes.draw(start, count))]
            affines = random_affines(count, size_px, augment, generator)
            masks = warp_labels(real, affines, fill=BACKGROUND)
        return Batch(images, labels, unlabelled, masks)

    def _on_device(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(indices).to(self._device, non_blocking=True)

    def _require(self, indices: np.ndarray, what: str, whose: str) -> None:
        if len(indices) == 0:
            raise SplitError(
                f"none of {whose} has {what}; add {what} for some of them, or change data.split or loss.adversarial"
            )


def seed_of(seed: int, *name: object) -> int:
    """A 63-bit seed for one named draw, independent of every other name's."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
