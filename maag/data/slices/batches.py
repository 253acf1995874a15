"""Training batches: slices drawn by step, augmented on the device.

Every draw is a function of (seed, step): a run that stops at any step and resumes sees the same batches, without any
generator state to keep. And so does a run on another number of workers: everything is drawn for the whole batch, and
each worker does its shard of it.
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
from maag.data.slices.shard import WHOLE, Shard
from maag.data.slices.store import SliceStore, fits
from maag.data.slices.supervision import Supervision
from maag.errors import ConfigError
from maag.labels import BACKGROUND, IGNORE


class TeacherView(NamedTuple):
    """A batch's slices for a teacher to look at: nothing was changed in them, but that they may have been turned."""

    images: Tensor
    """(M, C, H, W) float32: the supervised slices, then the unlabelled ones."""
    grids: Tensor
    """(M, H, W, 2) float32: where the batch's pixels were taken from in them, see `sampling_grids`."""


class Batch(NamedTuple):
    """What one training step sees on one worker: its shard of the whole batch."""

    images: Tensor
    """(N, C, H, W) float32: supervised slices, those with scribbles first."""
    labels: Tensor
    """(N, H, W) uint8: their scribbles or masks, IGNORE where nothing is known."""
    unlabelled: Tensor | None
    """(N, C, H, W) float32: further slices for the adversarial term, if it has a weight."""
    masks: Tensor | None
    """(N, H, W) uint8: real, unpaired masks for the discriminator, if there is one."""
    num_dense: int = 0
    """How many of the supervised slices, the last ones, have masks."""
    label_weights: Tensor | None = None
    """(N, H, W) float32 in [0, 1]: how much each label counts; None when all count alike."""
    teacher_view: TeacherView | None = None
    """All images before they were changed, if a teacher is to see them."""
    lesson: Tensor | None = None
    """(M, num_classes, H, W) float32: what finished models say of all images, if such teach; 0 beyond their edges."""
    areas: Areas | None = None
    """How large each class is in real masks, if predictions are held to it."""


class TrainingBatches:
    """The training part of a data set as batches on `device`, of which a worker takes its `shard`.

    Raises:
        ConfigError: there are more workers than slices in a batch.
    """

    def __init__(self, supervision: Supervision, config: Config, device: torch.device, shard: Shard = WHOLE) -> None:
        if shard.size > config.optim.batch_size:
            raise ConfigError(
                f"{shard.size} workers cannot share batches of {config.optim.batch_size} slices; use at most as many "
                "workers, or --set optim.batch_size=N"
            )
        self._config = config
        self._shard = shard
        self._generator = torch.Generator(device)
        self._fill = BACKGROUND if config.augment.fill == "background" else IGNORE
        count = config.optim.batch_size
        mixed = len(supervision.dense) > 0 and len(supervision.scribbled) > 0
        self._num_dense = count if not len(supervision.scribbled) else 0
        if mixed:
            self._num_dense = min(max(1, round(config.optim.dense_ratio * count)), count - 1)

        seed = config.train.seed
        others = _second_batch(supervision, config)
        self._scribbled = SliceSource(supervision.scribbled, seed, "scribbled")
        self._dense = SliceSource(supervision.dense, seed, "dense")
        self._unlabelled = SliceSource(others, seed, "unlabelled") if len(others) else None
        self._real = SliceSource(supervision.real, seed, "shapes") if config.adversarial else None

        arrays = (supervision.images, supervision.scribbles, supervision.masks, supervision.shapes)
        further = (supervision.scribble_weights, supervision.lessons)
        resident = fits(sum(array.nbytes for array in (*arrays, *further) if array is not None), device)
        self._images, self._scribbles, self._masks, self._shapes = (
            SliceStore(array, device, resident=resident) for array in arrays
        )
        self._weights, self._lessons = (
            None if array is None else SliceStore(array, device, resident=resident) for array in further
        )
        self._areas = None
        if config.loss.areas:
            found = measure_areas(supervision.shapes, supervision.real, config.data.num_classes)
            self._areas = Areas(*(part.to(device) for part in found))

    @property
    def bring_lessons(self) -> bool:
        """Whether finished models have said beforehand what a teacher would be asked of."""
        return self._lessons is not None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each kind of supervised slices is seen about once, or more often."""
        count = self._config.optim.batch_size
        passes = [len(self._scribbled) / max(1, count - self._num_dense), len(self._dense) / max(1, self._num_dense)]
        return max(1, round(max(passes)))

    def at(self, step: int) -> Batch:
        """This worker's part of the batch of training step `step`, counted from 0."""
        count, shard = self._config.optim.batch_size, self._shard
        generator = self._generator.manual_seed(seed_of(self._config.train.seed, "augment", step))

        scribbled, dense = self._supervised_at(step)
        grids = self._random_grids(generator)
        supervised = np.concatenate([scribbled, dense])
        originals = self._images.gather(supervised)
        images = self._changed(originals, grids, generator)
        labels = torch.cat([self._scribbles.gather(scribbled), self._masks.gather(dense)])
        labels = warp_labels(labels, grids, fill=self._fill)
        weights = self._weights_of(scribbled, labels, grids)

        lessons = self._said_of(supervised, grids)
        asks = self._config.loss.teacher > 0 and not lessons
        view = self._teacher_view(originals, grids, generator) if asks else None
        unlabelled = masks = None
        if self._unlabelled:
            further = shard.of(self._unlabelled.draw(step * count, count))
            others = self._images.gather(further)
            grids = self._random_grids(generator)
            unlabelled = self._changed(others, grids, generator)
            lessons += self._said_of(further, grids)
            if view:
                parts = zip(view, self._teacher_view(others, grids, generator), strict=True)
                view = TeacherView(*(torch.cat(both) for both in parts))
        if self._real:
            real = self._shapes.gather(shard.of(self._real.draw(step * count, count)))
            masks = warp_labels(real, self._random_grids(generator), fill=BACKGROUND)
        lesson = torch.cat(lessons) if lessons else None
        return Batch(images, labels, unlabelled, masks, len(dense), weights, view, lesson, self._areas)

    def _supervised_at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of this worker's slices with scribbles, and of those with masks, which come after them in a batch."""
        count = self._config.optim.batch_size
        num_scribbled = count - self._num_dense
        places = self._shard.of(np.arange(count))
        scribbled = self._scribbled.draw(step * num_scribbled, num_scribbled)[places[places < num_scribbled]]
        dense = self._dense.draw(step * self._num_dense, self._num_dense)
        return scribbled, dense[places[places >= num_scribbled] - num_scribbled]

    def _weights_of(self, scribbled: NDArray[np.int64], labels: Tensor, grids: Tensor) -> Tensor | None:
        """(N, H, W) float, how much each pixel of `labels` counts, of slices with scribbles and then others."""
        if not self._weights:
            return None
        stored = torch.cat([self._weights.gather(scribbled), torch.full_like(labels[len(scribbled) :], FULL_WEIGHT)])
        return warp_labels(stored, grids, fill=FULL_WEIGHT).float() / FULL_WEIGHT

    def _random_grids(self, generator: torch.Generator) -> Tensor:
        count, size_px, augment = self._config.optim.batch_size, self._config.data.size_px, self._config.augment
        affines = random_affines(count, size_px, augment, generator)
        displacements = random_displacements(count, augment, generator)
        own = None if displacements is None else self._shard.of(displacements)
        return sampling_grids(self._shard.of(affines), own, size_px)

    def _changed(self, images: Tensor, grids: Tensor, generator: torch.Generator) -> Tensor:
        warped = warp_images(images, grids, self._config.augment.interpolation)
        return change_intensities(warped, self._random_intensities(generator))

    def _teacher_view(self, images: Tensor, grids: Tensor, generator: torch.Generator) -> TeacherView:
        limit = self._config.teacher.rotation_deg
        if limit == 0:
            return TeacherView(images, grids)
        size_px = self._config.data.size_px
        angles = self._shard.of(random_angles(self._config.optim.batch_size, limit, generator))
        turned_grids = sampling_grids(rotations(angles, size_px), None, size_px)
        turned = warp_images(images, turned_grids, self._config.augment.interpolation)
        back = rotations(-angles, size_px)[:, :, :2]
        return TeacherView(turned, torch.einsum("nij,nhwj->nhwi", back, grids))

    def _said_of(self, indices: NDArray[np.int64], grids: Tensor) -> list[Tensor]:
        """What is said of some slices, in the geometry that `grids` bring them to; nothing where none was asked."""
        if self._lessons is None:
            return []
        parts = self._lessons.gather(indices).float()
        # Each was rounded, so they need not add up to certainty.
        return [warp_probabilities(parts / parts.sum(dim=1, keepdim=True).clamp(min=1.0), grids)]

    def _random_intensities(self, generator: torch.Generator) -> IntensityChanges:
        data = self._config.data
        shape = (self._config.optim.batch_size, data.channels, *data.size_px)
        changes = random_intensities(shape, self._config.augment, generator)
        own = {name: self._shard.of(change) for name, change in changes._asdict().items() if change is not None}
        return IntensityChanges(**own)


def _second_batch(supervision: Supervision, config: Config) -> NDArray[np.int64]:
    """The slices that a second batch in each step, without labels, is drawn from."""
    if config.loss.adversarial_unlabelled:
        return np.concatenate([supervision.scribbled, supervision.dense, supervision.unlabelled])
    # What a teacher has to say of the other slices' pixels, it says in the first batch.
    return supervision.unlabelled if config.loss.teacher else supervision.unlabelled[:0]
