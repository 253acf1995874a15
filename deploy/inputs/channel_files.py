"""Images with one file per channel, `X_0000.nii.gz` and `X_0001.nii.gz`, and the channels that a model takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.artifact.manifest import sha256_of
from deploy.inputs.images import InputImage, NiftiImage, Picture
from maag.config.data import DataConfig
from maag.data.datasets.ppss import with_mask_extent
from maag.data.files import nifti, pictures, volume
from maag.data.files.label_files import load_image
from maag.data.files.volume import Volume
from maag.errors import DataError

CHANNELS_APART = "nnunet"
"""The only data set whose pictures may hold one channel each; in all others a picture holds all channels."""

_OWN_EXTENT = "ppss"
"""The only data set whose reader resizes pictures of any size to one extent."""


@dataclass(frozen=True, slots=True)
class ChannelFiles:
    """A NIfTI file or a picture per channel, in order; labels are written as for the first."""

    files: tuple[Path, ...]
    target: Path

    @property
    def place(self) -> Path:
        """See InputImage; the first file."""
        return self.files[0]

    def digest(self) -> str:
        """See InputImage."""
        return hashlib.sha256(json.dumps([sha256_of(file) for file in self.files]).encode()).hexdigest()

    def frames(self) -> Iterator[Volume]:
        """See InputImage."""
        if not nifti.is_nifti(self.place):
            yield load_image(self.files)
            return
        counts = [volume.num_volumes(file) for file in self.files]
        for file, count in zip(self.files, counts, strict=True):
            if count != counts[0]:
                raise DataError(
                    f"{file}: a channel of {count} frames, but {self.place} has {counts[0]}; all channels need the "
                    "same number: export them again"
                )
        for number in range(counts[0]):
            yield volume.load_channels(self.files, number if counts[0] > 1 else None)

    def save_labels(
        self, path: Path, labels: NDArray[np.uint8], classes: Sequence[str], model_digest: str = ""
    ) -> None:
        """See InputImage."""
        kind = NiftiImage if nifti.is_nifti(self.place) else Picture
        kind(self.place, self.target).save_labels(path, labels, classes, model_digest)


def takes_colours(data: DataConfig) -> bool:
    """Whether the model was trained on pictures with all channels in one file: red, green and blue."""
    return data.channels == pictures.COLOURS and data.dataset != CHANNELS_APART


def has_own_extent(data: DataConfig) -> bool:
    """Whether the model takes all pictures to have the same extent, whatever their number of pixels."""
    return data.dataset == _OWN_EXTENT


def fitting(found: Volume, image: InputImage, data: DataConfig) -> Volume:
    """The volume as the model takes it: a grey picture as colours, and with PPSS's extent, as in training.

    Raises DataError if the model takes another number of channels.
    """
    if has_own_extent(data) and isinstance(image, Picture):
        found = with_mask_extent(found)
    number, wanted = len(found.voxels), data.channels
    if number == wanted:
        return found
    if takes_colours(data) and isinstance(image, Picture) and number == 1:
        return pictures.in_colours(found)
    has = f"the image has {number} channel{'s' if number > 1 else ''}, but the model takes {wanted}"
    if wanted == 1:
        raise DataError(f"{has}; save it in grey, or use a model that was trained on such images")
    names = ", ".join(f"CASE_{channel:04}" for channel in range(wanted))
    picture = "give a colour picture, or " if wanted == pictures.COLOURS else ""
    raise DataError(f"{has}; {picture}save each channel as its own 2-D or 3-D file, {names}, and give their folder")
