"""What a run reads, and how its slices are changed in training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from maag.config.networks import SIZE_MULTIPLE
from maag.config.section import Count, NotNegative, Positive, Probability, Seed, section


@section
class DataConfig:
    """What is read, and the grid it is brought to."""

    dataset: str = Field(default="acdc", description="Name of the data set's reader.")
    classes: tuple[str, ...] = Field(
        default=("background", "RV", "MYO", "LV"),
        min_length=2,
        description="Class names in the order of their label values; background first.",
    )
    channels: Count = Field(default=1, description="Channels of an image.")
    unlabelled_value: Annotated[int, Field(ge=0, le=255)] | None = Field(
        default=4, description="Value of pixels without a scribble in the scribble files; null: not said, so refused."
    )
    modality: Literal["t1in", "t1out", "t2spir"] = Field(
        default="t1in", description="Which series, in data sets that have several (chaos)."
    )
    spacing_mm: Positive = Field(default=1.5117105, description="In-plane pixel size that slices are resampled to.")
    size_px: tuple[Count, Count] = Field(
        default=(224, 224),
        description="Height and width of the grid, multiples of 16, cropped or padded at the centre.",
    )
    padding_label: Literal["background", "ignore"] = Field(
        default="background", description="What padded pixels count as, in scribbles and masks."
    )
    normalization: Literal["robust", "unit"] = Field(
        default="robust",
        description="robust: clip to [p5, p95], then (x - median) / IQR, per volume and channel; unit: x / 255.",
    )
    split: Literal["auto", "split0", "random"] = Field(
        default="auto",
        description="split0: the paper's patients; random: by split_seed; auto: split0 where the data set has it.",
    )
    split_seed: Seed = Field(default=0, description="Seed of the random split.")
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.15, description="Part of the patients that validates, in a random split."
    )
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.15, description="Part of the patients that tests, in a random split."
    )
    supervision: Literal["weak", "semi", "mixed", "dense"] = Field(
        default="weak",
        description="weak: scribbles; semi: scribbles of a fraction, the other patients' images unlabelled; mixed: "
        "masks of a fraction, scribbles of the others; dense: masks, the upper bound.",
    )
    scribbled_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Part of the training patients whose scribbles are used."
    )
    shapes_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Part of the patients with unpaired masks whose masks the discriminator sees."
    )
    dense_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="Part of the training patients whose masks supervise, if mixed."
    )
    cine: bool = Field(default=True, description="Use the frames of 4-D images as unlabelled images, if semi.")
    raters: Literal["union", "majority", "weighted"] = Field(
        default="union",
        description="Several scribbles of one image: union: all pixels on which nobody disagrees; majority: the label "
        "of most; weighted: the label of most weight, its pixels weighing as much.",
    )
    rater_weights: tuple[NotNegative, ...] = Field(
        default=(),
        examples=[(1, 0.5)],
        description="A weight for each rater, in the order of --scribbles; []: from their agreement.",
    )
    scribble_seed: Seed = Field(default=0, description="Seed of scribbles that are simulated from masks.")

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: each name may stand once, got {list(self.classes)}")
        if any(size % SIZE_MULTIPLE for size in self.size_px):
            raise ValueError(
                f"size_px: height and width must be multiples of {SIZE_MULTIPLE}, got {list(self.size_px)}"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction:g} and data.test_fraction={self.test_fraction:g} leave no patients "
                "to train on; together they must be below 1, such as 0.15 and 0.15"
            )
        if self.unlabelled_value is not None and self.unlabelled_value < len(self.classes):
            raise ValueError(
                f"unlabelled_value: {self.unlabelled_value} is the value of class "
                f"{self.classes[self.unlabelled_value]!r}; it must be at least {len(self.classes)}"
            )


@section
class AugmentConfig:
    """Random changes of a training slice, drawn anew at each step on the device."""

    rotation_deg: float = Field(default=90.0, ge=0, le=180, description="Rotation, uniform in ± this.")
    translation: float = Field(default=0.1, ge=0, le=0.5, description="Shift as part of the side, uniform in ± this.")
    scale: float = Field(default=0.0, ge=0, lt=1, description="Zoom, uniform in 1 ± this.")
    flip: Probability = Field(default=0.0, description="Probability of mirroring each axis.")
    fill: Literal["ignore", "background"] = Field(
        default="ignore", description="What supervised pixels that come from outside the slice count as."
    )
    interpolation: Literal["linear", "cubic"] = Field(
        default="linear",
        description="Of images that are turned, shifted or zoomed; linear softens them, which images to be segmented "
        "are not.",
    )
    brightness: NotNegative = Field(default=0.025, description="Added to intensities, uniform in ± this.")
    contrast: float = Field(default=0.05, ge=0, lt=1, description="Factor on intensities, uniform in 1 ± this.")
    noise: NotNegative = Field(default=0.02, description="Standard deviation of Gaussian noise on intensities.")
    elastic: float = Field(
        default=0.0, ge=0, le=0.1, description="Standard deviation of a smooth deformation, as part of the side."
    )
    gamma: float = Field(
        default=0.0, ge=0, lt=1, description="Exponent on intensities, log-uniform from 1 - this to 1 / (1 - this)."
    )
    cutout: float = Field(
        default=0.0, ge=0, lt=1, description="Longest side of a box cut from the image, as part of the image's side."
    )
