"""Settings of the networks: the segmentor, its gates, and the discriminator."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maag.config.section import Count, CountOrZero, Level, NotNegative, Positive, Probability, section

SIZE_MULTIPLE = 16
"""Height and width of a slice must be multiples of it, because the segmentor halves them four times."""


@section
class SegmentorConfig:
    """The U-Net."""

    width: Count = Field(default=32, description="Channels of the first level; doubled at each of four levels.")
    residual_blocks: tuple[CountOrZero, ...] = Field(
        default=(0, 0, 0, 0),
        description="Residual blocks of each encoder level, full resolution first, such as [1, 2, 2, 2]; 0: the "
        "paper's double convolution.",
    )
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.01, description="Weight of a batch in batch normalisation's running statistics."
    )
    sync_batchnorm: bool = Field(
        default=False, description="With several workers, normalise over the slices of all workers."
    )

    def __post_init__(self) -> None:
        if len(self.residual_blocks) != 4:
            raise ValueError(
                "residual_blocks: there must be one number for each of the 4 encoder levels, such as [1, 2, 2, 2], got "
                f"{list(self.residual_blocks)}"
            )


@section
class GateConfig:
    """The adversarial attention gates of the decoder."""

    levels: tuple[Level, ...] = Field(
        default=(0, 1, 2, 3), description="Decoder levels with a gate: 0 is full resolution, 3 is 1/8; []: none."
    )
    conditioned: bool = Field(
        default=True, description="The discriminator sees the gate maps; false: the resized prediction instead."
    )
    residual: bool = Field(default=False, description="Multiply features by (1 + attention) instead of attention.")
    temperature: Positive = Field(default=1.0, description="Divisor of the gates' logits before the softmax.")

    def __post_init__(self) -> None:
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels: each level may occur only once, got {list(self.levels)}")


@section
class DiscriminatorConfig:
    """The multi-scale discriminator of masks."""

    width: Count = Field(default=32, description="Channels of the first layer.")
    squeeze_channels: Count = Field(
        default=13, description="Channels to which features are squeezed before the next scale is concatenated."
    )
    scales: tuple[Level, ...] = Field(
        default=(0, 1, 2, 3), description="Scales of its input: 0 is full resolution (required), 3 is 1/8."
    )
    instance_noise: NotNegative = Field(
        default=0.2, description="Standard deviation of Gaussian noise on its full-resolution input."
    )
    label_noise: Probability = Field(default=0.1, description="Probability that its score of a slice changes sign.")

    def __post_init__(self) -> None:
        if 0 not in self.scales or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales: 0 is required and each scale may occur only once, got {list(self.scales)}")
