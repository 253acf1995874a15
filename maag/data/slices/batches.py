"""Training batches: slices drawn by step, augmented on the device.

Every draw is a function of (seed, step): a run that stops at any step and resumes sees the same batches, without stored
generator states. So does a run on another number of workers: everything is drawn for the whole batch, and each worker
takes its shard of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maag.config.schema import Config
from maag.data.scribbles.raters import FULL_WEIGHT
from maag.data.slices.areas import Areas, measure_areas
from maag.data.slices.augment import (
    IntensityChanges,
    change_intensities,
    random_affines,
    random_angles,
    random_displacements,
    random_intensities,
    rotations,
    sampling_grids,
    warp_images,
    warp_labels,
    warp_probabilities,
)
from maag.data.slices.draws import SliceSource, seed_of
from maag.data.slices.shard import WHOLE, Shard, require_shares
from maag.data.slices.store import SliceStore, fits, upload
from maag.data.slices.supervision import Supervision
from maag.labels import BACKGROUND, IGNORE


class TeacherView(NamedTuple):
    """A batch's slices for a teacher: not augmented, except that they may be rotated."""

    images: Tensor
    """(M, C, H, W) float32: the supervised slices, then the unlabelled ones."""
    grids: Tensor
    """(M, H, W, 2) float32: coordinates in them of the batch's pixels, see `sampling_grids`."""


class Batch(NamedTuple):
    """The data of one training step on one worker: its shard of the whole batch."""

    images: Tensor
    """(N, C, H, W) float32: supervised slices, those with scribbles first."""
    labels: Tensor
    """(N, H, W) uint8: their scribbles or masks, IGNORE where unlabelled."""
    unlabelled: Tensor | None
    """(N, C, H, W) float32: further slices for the terms that need no labels, if there are any."""
    masks: Tensor | None
    """(N, H, W) uint8: real, unpaired masks for the discriminator, if there is one."""
    num_dense: int = 0
    """Number of supervised slices with masks, which are the last ones."""
    label_weights: Tensor | None = None
    """(N, H, W) float32 in [0, 1]: weight of each label; None when all are 1."""
    teacher_view: TeacherView | None = None
    """All images before augmentation, if a teacher is to see them."""
    soft_labels: Tensor | None = None
    """(M, num_classes, H, W) float32: finished teachers' probabilities for all images, if any; 0 beyond their edges."""
    areas: Areas | None = None
    """Class areas in real masks, if `loss.areas` is set."""


class TrainingBatches:
    """The training part of a data set as batches on `device`, of which a worker takes its `shard`.

    Raises:
        ConfigError: there are more workers than slices in a batch.
    """

    def __init__(self, supervision: Supervision, config: Config, device: torch.device, shard: Shard = WHOLE) -> None:
        require_shares(shard.size, config.optim.batch_size)
        self._config = config
        self._shard = shard
        self._device = device
        # What is drawn once per slice takes some hundred tiny operations, each of them a kernel to launch on a GPU.
        self._generator = torch.Generator()
        self._noise_generator = torch.Generator(device) if device.type == "cuda" else self._generator
        self._fill = BACKGROUND if config.augment.fill == "background" else IGNORE
        count = config.optim.batch_size
        mixed = len(supervision.dense) > 0 and len(supervision.scribbled) > 0
        self._num_dense = count if not len(supervision.scribbled) else 0
        if mixed:
            self._num_dense = min(max(1, round(config.optim.dense_ratio * count)), count - 1)

        seed = config.train.seed
        others = _unlabelled_slices(supervision, config)
        self._scribbled = SliceSource(supervision.scribbled, seed, "scribbled")
        self._dense = SliceSource(supervision.dense, seed, "dense")
        self._unlabelled = SliceSource(others, seed, "unlabelled") if len(others) else None
        self._real = SliceSource(supervision.real, seed, "shapes") if config.adversarial else None

        arrays = (supervision.images, supervision.scribbles, supervision.masks, supervision.shapes)
        further = (supervision.scribble_weights, supervision.soft_labels)
        resident = fits(sum(array.nbytes for array in (*arrays, *further) if array is not None), device)
        self._images, self._scribbles, self._masks, self._shapes = (
            SliceStore(array, device, resident=resident) for array in arrays
        )
        self._weights, self._soft_labels = (
            None if array is None else SliceStore(array, device, resident=resident) for array in further
        )
        self._areas = None
        if config.loss.areas:
            found = measure_areas(supervision.shapes, supervision.real, config.data.num_classes)
            self._areas = Areas(*(part.to(device) for part in found))

    @property
    def has_soft_labels(self) -> bool:
        """Whether batches have soft labels, predicted beforehand by finished teachers."""
        return self._soft_labels is not None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each kind of supervised slice is seen about once, or more often."""
        count = self._config.optim.batch_size
        passes = [len(self._scribbled) / max(1, count - self._num_dense), len(self._dense) / max(1, self._num_dense)]
        return max(1, round(max(passes)))

    def at(self, step: int) -> Batch:
        """This worker's shard of the batch of training step `step`, counted from 0."""
        count, shard = self._config.optim.batch_size, self._shard
        seed = seed_of(self._config.train.seed, "augment", step)
        self._noise_generator.manual_seed(seed)
        generator = self._generator.manual_seed(seed)

        scribbled, dense = self._supervised_at(step)
        grids = self._random_grids(generator)
        supervised = np.concatenate([scribbled, dense])
        originals = self._images.gather(supervised)
        images = self._changed(originals, grids, generator)
        labels = torch.cat([self._scribbles.gather(scribbled), self._masks.gather(dense)])
        labels = warp_labels(labels, grids, fill=self._fill)
        weights = self._weights_of(scribbled, labels, grids)

        soft_labels = self._soft_labels_of(supervised, grids)
        asks_teacher = self._config.loss.teacher > 0 and not soft_labels
        view = self._teacher_view(originals, grids, generator) if asks_teacher else None
        unlabelled = masks = None
        if self._unlabelled:
            further = shard.of(self._unlabelled.draw(step * count, count))
            others = self._images.gather(further)
            grids = self._random_grids(generator)
            unlabelled = self._changed(others, grids, generator)
            soft_labels += self._soft_labels_of(further, grids)
            if view:
                parts = zip(view, self._teacher_view(others, grids, generator), strict=True)
                view = TeacherView(*(torch.cat(both) for both in parts))
        if self._real:
            real = self._shapes.gather(shard.of(self._real.draw(step * count, count)))
            masks = warp_labels(real, self._random_grids(generator), fill=BACKGROUND)
        soft = torch.cat(soft_labels) if soft_labels else None
        return Batch(images, labels, unlabelled, masks, len(dense), weights, view, soft, self._areas)

    def _supervised_at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of this worker's slices with scribbles, and of those with masks, which follow them in a batch."""
        count = self._config.optim.batch_size
        num_scribbled = count - self._num_dense
        places = self._shard.of(np.arange(count))
        scribbled = self._scribbled.draw(step * num_scribbled, num_scribbled)[places[places < num_scribbled]]
        dense = self._dense.draw(step * self._num_dense, self._num_dense)
        return scribbled, dense[places[places >= num_scribbled] - num_scribbled]

    def _weights_of(self, scribbled: NDArray[np.int64], labels: Tensor, grids: Tensor) -> Tensor | None:
        """(N, H, W) float weights of the pixels of `labels`, whose first slices are the `scribbled` ones."""
        if not self._weights:
            return None
        stored = torch.cat([self._weights.gather(scribbled), torch.full_like(labels[len(scribbled) :], FULL_WEIGHT)])
        return warp_labels(stored, grids, fill=FULL_WEIGHT).float() / FULL_WEIGHT

    def _random_grids(self, generator: torch.Generator) -> Tensor:
        count, size_px, augment = self._config.optim.batch_size, self._config.data.size_px, self._config.augment
        affines = random_affines(count, size_px, augment, generator)
        displacements = random_displacements(count, augment, generator)
        return sampling_grids(self._own(affines), None if displacements is None else self._own(displacements), size_px)

    def _own(self, drawn: Tensor) -> Tensor:
        """This worker's rows, on the device, of what was drawn for the whole batch."""
        return upload(self._shard.of(drawn), self._device)

    def _changed(self, images: Tensor, grids: Tensor, generator: torch.Generator) -> Tensor:
        warped = warp_images(images, grids, self._config.augment.interpolation)
        return change_intensities(warped, self._random_intensities(generator))

    def _teacher_view(self, images: Tensor, grids: Tensor, generator: torch.Generator) -> TeacherView:
        limit = self._config.teacher.rotation_deg
        if limit == 0:
            return TeacherView(images, grids)
        size_px = self._config.data.size_px
        angles = random_angles(self._config.optim.batch_size, limit, generator)
        rotation_grids = sampling_grids(self._own(rotations(angles, size_px)), None, size_px)
        rotated = warp_images(images, rotation_grids, self._config.augment.interpolation)
        inverse = self._own(rotations(-angles, size_px)[:, :, :2])
        return TeacherView(rotated, torch.einsum("nij,nhwj->nhwi", inverse, grids))

    def _soft_labels_of(self, indices: NDArray[np.int64], grids: Tensor) -> list[Tensor]:
        """Soft labels of some slices, warped by `grids`; empty where there are none."""
        if self._soft_labels is None:
            return []
        parts = self._soft_labels.gather(indices).float()
        # They are rounded, so they need not add up to SOFT_LABEL_SCALE.
        return [warp_probabilities(parts / parts.sum(dim=1, keepdim=True).clamp(min=1.0), grids)]

    def _random_intensities(self, generator: torch.Generator) -> IntensityChanges:
        data = self._config.data
        shape = (self._config.optim.batch_size, data.channels, *data.size_px)
        changes = random_intensities(shape, self._config.augment, generator, self._noise_generator)
        own = {name: self._own(change) for name, change in changes._asdict().items() if change is not None}
        return IntensityChanges(**own)


def _unlabelled_slices(supervision: Supervision, config: Config) -> NDArray[np.int64]:
    """The slices that each step's second, unlabelled batch is drawn from."""
    if config.loss.adversarial_unlabelled:
        return np.concatenate([supervision.scribbled, supervision.dense, supervision.unlabelled])
    # A teacher labels the other slices' pixels in the first batch.
    return supervision.unlabelled if config.loss.teacher else supervision.unlabelled[:0]
