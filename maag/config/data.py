"""Settings of the data and of augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from maag.config.networks import SIZE_MULTIPLE
from maag.config.section import Count, NotNegative, Positive, Probability, Seed, section


@section
class DataConfig:
    """The data set, and the grid that slices are resampled to."""

    dataset: str = Field(default="acdc", description="Name of the data set's reader.")
    classes: tuple[str, ...] = Field(
        default=("background", "RV", "MYO", "LV"),
        min_length=2,
        description="Class names in the order of their label values; background first.",
    )
    channels: Count = Field(default=1, description="Channels of an image.")
    unlabelled_value: Annotated[int, Field(ge=0, le=255)] | None = Field(
        default=4, description="Value of unannotated pixels in the scribble files; null: unknown, so refused."
    )
    modality: Literal["t1in", "t1out", "t2spir"] = Field(
        default="t1in", description="Series to use, in data sets that have several (chaos)."
    )
    spacing_mm: Positive = Field(default=1.5117105, description="In-plane pixel size that slices are resampled to.")
    size_px: tuple[Count, Count] = Field(
        default=(224, 224),
        description="Height and width of the grid, multiples of 16; slices are cropped or padded at the centre.",
    )
    padding_label: Literal["background", "ignore"] = Field(
        default="background", description="Label of padded pixels, in scribbles and masks."
    )
    normalization: Literal["robust", "unit"] = Field(
        default="robust",
        description="robust: clip to [p5, p95], then (x - median) / IQR, per volume and channel; unit: x / 255.",
    )
    split: Literal["auto", "split0", "random"] = Field(
        default="auto",
        description="split0: the paper's patients; random: by split_seed; auto: split0 if the data set has it.",
    )
    split_seed: Seed = Field(default=0, description="Seed of the random split.")
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.15, description="Fraction of the patients for validation, in a random split."
    )
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.15, description="Fraction of the patients for testing, in a random split."
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Number of folds of a cross-validation over a random split, instead of val_fraction; null: none. "
        "Every patient with a mask validates in one fold, except test patients, which are the same in all folds.",
    )
    fold: Count = Field(default=1, description="The fold of this run, from 1 to data.folds.")
    supervision: Literal["weak", "semi", "mixed", "dense"] = Field(
        default="weak",
        description="weak: scribbles; semi: scribbles of a fraction of the patients, images alone of the others; "
        "mixed: masks of a fraction, scribbles of the others; dense: masks (fully supervised upper bound).",
    )
    scribbled_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Fraction of the training patients whose scribbles are used."
    )
    shapes_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Fraction of the patients with unpaired masks whose masks the discriminator sees."
    )
    dense_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="Fraction of the training patients whose masks supervise, if mixed."
    )
    cine: bool = Field(default=True, description="Use the frames of 4-D images as unlabelled images, if semi.")
    raters: Literal["union", "majority", "weighted"] = Field(
        default="union",
        description="How to combine several scribbles of one image. union: all pixels without disagreement; majority: "
        "the label of most raters; weighted: the label with the most weight, and its pixels have that weight.",
    )
    rater_weights: tuple[NotNegative, ...] = Field(
        default=(),
        examples=[(1, 0.5)],
        description="A weight for each rater, in the order of --scribbles; []: from their agreement.",
    )
    scribble_seed: Seed = Field(default=0, description="Seed of scribbles simulated from masks.")

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: each name may occur only once, got {list(self.classes)}")
        if any(size % SIZE_MULTIPLE for size in self.size_px):
            raise ValueError(
                f"size_px: height and width must be multiples of {SIZE_MULTIPLE}, got {list(self.size_px)}"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction:g} and data.test_fraction={self.test_fraction:g} leave no patients "
                "to train on; together they must be below 1, such as 0.15 and 0.15"
            )
        if self.fold > (self.folds or 1):
            raise ValueError(
                f"fold={self.fold} is not among {self.folds} folds; it must be from 1 to data.folds"
                if self.folds
                else f"fold={self.fold} needs the number of folds, such as data.folds=5"
            )
        if self.folds and self.split == "split0":
            raise ValueError(f"folds={self.folds} needs a random split; leave data.split=split0 out")
        if self.unlabelled_value is not None and self.unlabelled_value < len(self.classes):
            raise ValueError(
                f"unlabelled_value: {self.unlabelled_value} is the value of class "
                f"{self.classes[self.unlabelled_value]!r}; it must be at least {len(self.classes)}"
            )


@section
class AugmentConfig:
    """Random transforms of training slices, sampled at each step on the device."""

    rotation_deg: float = Field(default=90.0, ge=0, le=180, description="Rotation in degrees, uniform in ± this.")
    translation: float = Field(
        default=0.1, ge=0, le=0.5, description="Shift as a fraction of the side, uniform in ± this."
    )
    scale: float = Field(default=0.0, ge=0, lt=1, description="Zoom, uniform in 1 ± this.")
    flip: Probability = Field(default=0.0, description="Probability of mirroring each axis.")
    fill: Literal["ignore", "background"] = Field(
        default="ignore", description="Label of supervised pixels that come from outside the slice."
    )
    interpolation: Literal["linear", "cubic"] = Field(
        default="linear",
        description="Interpolation of images that are rotated, shifted or zoomed; linear blurs them slightly, unlike "
        "the images to segment later.",
    )
    brightness: NotNegative = Field(default=0.025, description="Added to intensities, uniform in ± this.")
    contrast: float = Field(default=0.05, ge=0, lt=1, description="Factor on intensities, uniform in 1 ± this.")
    noise: NotNegative = Field(default=0.02, description="Standard deviation of Gaussian noise on intensities.")
    elastic: float = Field(
        default=0.0, ge=0, le=0.1, description="Standard deviation of a smooth deformation, as a fraction of the side."
    )
    gamma: float = Field(
        default=0.0, ge=0, lt=1, description="Exponent on intensities, log-uniform from 1 - this to 1 / (1 - this)."
    )
    cutout: float = Field(
        default=0.0, ge=0, lt=1, description="Largest side of a box cut from the image, as a fraction of its side."
    )
