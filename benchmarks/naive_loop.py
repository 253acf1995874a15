"""A plain training loop as the baseline of speed comparisons with `maag train`; not for use.

Eager fp32 in torch's default memory layout; a `DataLoader` that augments slice by slice on the CPU; default Adam; every
loss read at every step. The losses are the same: `benchmarks/speed.py` compares both on one batch before timing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maag.config.data import AugmentConfig
from maag.config.schema import Config
from maag.data.slices.augment import (
    change_intensities,
    random_affines,
    random_displacements,
    random_intensities,
    sampling_grids,
    warp_images,
    warp_labels,
)
from maag.data.slices.supervision import Supervision
from maag.labels import BACKGROUND, IGNORE
from maag.losses import adversarial_loss, balance, discriminator_loss, partial_cross_entropy
from maag.models.build import build_discriminator, build_segmentor
from maag.models.discriminator import DiscriminatorNoise, draw_noise, pyramid_of_masks, pyramid_of_predictions


class AugmentedSlices(Dataset[tuple[Tensor, ...]]):
    """Slices of an image array, of a label array, or of both, each augmented when it is loaded."""

    def __init__(
        self,
        indices: NDArray[np.int64],
        augment: AugmentConfig,
        *,
        images: NDArray[np.float32] | None = None,
        labels: NDArray[np.uint8] | None = None,
        fill: int = BACKGROUND,
    ) -> None:
        self._indices, self._augment, self._fill = indices, augment, fill
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> tuple[Tensor, ...]:
        index, random = self._indices[place], torch.default_generator
        parts = [array for array in (self._images, self._labels) if array is not None]
        height, width = parts[0].shape[-2:]
        grid = sampling_grids(
            random_affines(1, (height, width), self._augment, random),
            random_displacements(1, self._augment, random),
            (height, width),
        )
        found = []
        if self._images is not None:
            image = torch.from_numpy(np.array(self._images[index]))[None]
            count, channels = image.shape[:2]
            changes = random_intensities((count, channels, height, width), self._augment, random)
            found.append(change_intensities(warp_images(image, grid, self._augment.interpolation), changes)[0])
        if self._labels is not None:
            labels = torch.from_numpy(np.array(self._labels[index]))[None]
            found.append(warp_labels(labels, grid, fill=self._fill)[0])
        return tuple(found)


class NaiveLoop:
    """Networks, optimisers and data loaders of the plain loop, for scribbles with or without an unlabelled batch."""

    def __init__(self, supervision: Supervision, config: Config, device: torch.device, num_workers: int) -> None:
        if not config.adversarial or config.data.supervision != "weak" or config.loss.teacher or config.loss.areas:
            raise SystemExit("the plain loop has the paper's losses alone: scribbles and a discriminator, no others")
        self._config, self._device, self._noise = config, device, torch.Generator(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.segmentor = build_segmentor(config).to(device)
            self.discriminator = build_discriminator(config).to(device)
        self._on_segmentor = torch.optim.Adam(self.segmentor.parameters(), lr=config.optim.lr)
        self._on_discriminator = torch.optim.Adam(self.discriminator.parameters(), lr=config.optim.lr_discriminator)

        def endless(slices: AugmentedSlices) -> Iterator[list[Tensor]]:
            loader = DataLoader(
                slices,
                config.optim.batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=num_workers,
                persistent_workers=num_workers > 0,
            )
            while True:
                yield from loader

        augment, images = config.augment, supervision.images
        fill = BACKGROUND if augment.fill == "background" else IGNORE
        scribbled = supervision.scribbled
        self._scribbled = endless(
            AugmentedSlices(scribbled, augment, images=images, labels=supervision.scribbles, fill=fill)
        )
        self._real = endless(AugmentedSlices(supervision.real, augment, labels=supervision.shapes))
        others = np.concatenate([scribbled, supervision.unlabelled])
        self._others = (
            endless(AugmentedSlices(others, augment, images=images)) if config.loss.adversarial_unlabelled else None
        )

    def step(self) -> dict[str, float]:
        """One update on the next slices."""
        images, labels = (part.to(self._device) for part in next(self._scribbled))
        unlabelled = next(self._others)[0].to(self._device) if self._others else None
        return self.update(images, labels, unlabelled, next(self._real)[0].to(self._device))

    def update(self, images: Tensor, labels: Tensor, unlabelled: Tensor | None, masks: Tensor) -> dict[str, float]:
        """One update of both networks; returns the losses."""
        config, loss = self._config, self._config.loss
        scales, num_own = config.discriminator.scales, len(images)
        self.segmentor.train()
        self.discriminator.train()
        output = self.segmentor(images if unlabelled is None else torch.cat([images, unlabelled]))
        supervised = partial_cross_entropy(output.logits[:num_own], labels, class_weights=loss.class_weights)
        supervised = loss.supervised * supervised
        fakes = pyramid_of_predictions(output, scales, conditioned=config.gates.conditioned)

        reals = pyramid_of_masks(masks, config.data.num_classes, scales)
        both = {scale: torch.cat([reals[scale], fakes[scale].detach()]) for scale in scales}
        scores = self.discriminator(both, self._noise_for(both[0]))
        on_discriminator = discriminator_loss(scores[:num_own], scores[num_own:])
        self._on_discriminator.zero_grad()
        on_discriminator.backward()  # type: ignore[no-untyped-call]
        self._on_discriminator.step()

        fake_scores = self.discriminator(fakes, self._noise_for(fakes[0]))
        adversarial = adversarial_loss(fake_scores)
        weighted = loss.adversarial * adversarial_loss(fake_scores[:num_own])
        if unlabelled is not None:
            weighted = weighted + loss.adversarial_unlabelled * adversarial_loss(fake_scores[num_own:])
        factor: Any = balance(supervised, adversarial) if loss.dynamic_balance else 1.0
        self._on_segmentor.zero_grad()
        (supervised + factor * weighted).backward()
        self._on_segmentor.step()
        named = {"supervised": supervised, "adversarial": adversarial, "discriminator": on_discriminator}
        return {name: value.item() for name, value in named.items()}

    def _noise_for(self, maps: Tensor) -> DiscriminatorNoise:
        return draw_noise(maps.shape, self._noise)
