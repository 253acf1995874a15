"""Every setting of a run: frozen, typed, limited. One home per value; validation is pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_COARSEST = 16
"""By how much the segmentor's lowest level is smaller than a slice, in each direction."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
# What PyTorch and NumPy take, with room to multiply; more would end in an overflow of theirs.
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=10**15)]
Level = Annotated[int, Field(ge=0, le=3)]


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
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
        if any(size % _COARSEST for size in self.size_px):
            raise ValueError(f"size_px: height and width must be multiples of {_COARSEST}, got {list(self.size_px)}")
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


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
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
        default=False, description="With several workers: normalise by all workers' slices, not by each one's own."
    )

    def __post_init__(self) -> None:
        if len(self.residual_blocks) != 4:
            raise ValueError(
                "residual_blocks: each of the 4 encoder levels needs its number, such as [1, 2, 2, 2], got "
                f"{list(self.residual_blocks)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class GateConfig:
    """The adversarial attention gates of the decoder."""

    levels: tuple[Level, ...] = Field(
        default=(0, 1, 2, 3), description="Decoder levels with a gate: 0 is full resolution, 3 is 1/8; [] is none."
    )
    conditioned: bool = Field(
        default=True, description="The discriminator judges the gates' maps; otherwise the resized prediction."
    )
    residual: bool = Field(default=False, description="Multiply features by (1 + attention) instead of attention.")
    temperature: Positive = Field(default=1.0, description="Divides the gates' logits before the softmax.")

    def __post_init__(self) -> None:
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels: each level may stand once, got {list(self.levels)}")


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class DiscriminatorConfig:
    """The multi-scale judge of masks."""

    width: Count = Field(default=32, description="Channels of the first layer.")
    squeeze_channels: Count = Field(default=13, description="Channels kept before each next scale is joined.")
    scales: tuple[Level, ...] = Field(
        default=(0, 1, 2, 3), description="Scales it sees: 0 is full resolution (always), 3 is 1/8."
    )
    instance_noise: NotNegative = Field(
        default=0.2, description="Standard deviation of Gaussian noise on its full-resolution input."
    )
    label_noise: Probability = Field(default=0.1, description="Probability that its verdict on a slice changes sign.")

    def __post_init__(self) -> None:
        if 0 not in self.scales or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales: 0 must be there and each scale may stand once, got {list(self.scales)}")


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class LossConfig:
    """What each term weighs."""

    supervised: NotNegative = Field(default=1.0, description="Weight of the loss on scribbled slices.")
    dense: NotNegative = Field(default=1.0, description="Weight of the loss on slices with masks, if mixed or dense.")
    dense_overlap: NotNegative = Field(
        default=0.0, description="Weight of a soft Dice beside the cross-entropy on slices with masks."
    )
    adversarial: NotNegative = Field(
        default=0.1,
        description="Weight of the adversarial term on scribbled slices; with the next 0: no discriminator.",
    )
    adversarial_unlabelled: NotNegative = Field(
        default=0.2,
        description="Weight of the adversarial term on a second batch, of all images; 0: a teacher alone has one, of "
        "unlabelled patients.",
    )
    teacher: NotNegative = Field(
        default=0.0, description="Weight of the teacher's soft labels on pixels without a label; 0: none."
    )
    areas: NotNegative = Field(
        default=0.0, description="Weight of keeping each class, over many batches, as large as in unpaired masks."
    )
    dynamic_balance: bool = Field(
        default=True, description="Scale the adversarial terms by the ratio of supervised to adversarial loss."
    )
    class_weights: Probability = Field(
        default=1.0,
        description="Weigh classes by this power of n_total / n_class of the batch's labelled pixels; true is 1, and "
        "false is 0: all pixels weigh alike.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TeacherConfig:
    """The segmentor's running average, which is validated and exported, and teaches where nobody drew."""

    decay: float = Field(
        default=0.0, ge=0, lt=1, description="Part of the average that stays at each step; 0: no average is kept."
    )
    confidence: float = Field(
        default=0.8, ge=0, lt=1, description="Pixels whose likeliest class has less than this teach nothing."
    )
    rotation_deg: float = Field(
        default=0.0,
        ge=0,
        le=180,
        description="Largest turn of the slices that it looks at, in degrees; models of --teacher look at this and at "
        "half of it, either way, and at none.",
    )
    gates: NotNegative = Field(
        default=0.0, description="Weight of its lesson for the gates' maps, times loss.teacher; 0: none."
    )
    ramp: float = Field(
        default=0.3, ge=0, le=1, description="Part of training in which the lesson and loss.areas gain weight."
    )


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class OptimConfig:
    """Optimisers and their rate."""

    lr: Positive = Field(default=1e-4, description="Highest learning rate of Adam.")
    lr_min: NotNegative = Field(default=1e-5, description="Lowest learning rate.")
    lr_discriminator: Positive = Field(default=1e-4, description="Highest rate of the discriminator; same course.")
    schedule: Literal["triangular", "cosine", "poly", "constant"] = Field(
        default="triangular", description="Course of the rate from lr_min (triangular) or lr (cosine, poly)."
    )
    half_cycle_epochs: Count = Field(default=20, description="Epochs from lowest to highest rate, if triangular.")
    batch_size: Count = Field(default=12, description="Slices in a batch, of each kind.")
    dense_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Part of a batch drawn from the patients with masks, if mixed."
    )
    epochs: Count = Field(default=450, description="Passes over the labelled slices.")

    def __post_init__(self) -> None:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min: must not exceed lr ({self.lr}), got {self.lr_min}")


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TrainConfig:
    """How a run goes and ends."""

    seed: Seed = Field(default=1234, description="Seed of weights, sampling, augmentation and noise.")
    validate_every: Count = Field(default=15, description="Epochs between validations in the first half of a run.")
    validate_every_late: Count = Field(default=1, description="Epochs between validations in the second half.")
    patience: CountOrZero = Field(
        default=0, description="Validations without a better Dice before an early stop; 0: never."
    )
    min_delta: NotNegative = Field(default=1e-5, description="A Dice must be better by this much to count.")
    class_offsets: bool = Field(
        default=False,
        description="Find what added to each class's logit raises the Dice of the validation patients, as far as three "
        "or more of them agree, and keep it in the weights that are saved for use.",
    )
    checkpoint_minutes: Positive = Field(default=5.0, description="Minutes between checkpoints within an epoch.")
    precision: Literal["fp32", "bf16", "auto"] = Field(
        default="fp32",
        description="Of forward passes in training; auto: bf16 on GPUs that have it and CPUs with AMX or AVX512-BF16, "
        "else fp32 (on GPUs as PyTorch does it: convolutions in TF32). Weights and losses are fp32 in any case.",
    )
    compile: bool = Field(
        default=False, description="Compile the networks with torch.compile: faster steps, a slow first one."
    )
    cuda_graph: bool = Field(
        default=True,
        description="On a GPU with one worker: record a step once and replay it, so that its kernels start at once.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Config:
    """A whole run."""

    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    segmentor: SegmentorConfig = Field(default_factory=SegmentorConfig)
    gates: GateConfig = Field(default_factory=GateConfig)
    discriminator: DiscriminatorConfig = Field(default_factory=DiscriminatorConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    @property
    def adversarial(self) -> bool:
        """Whether a discriminator takes part."""
        return self.loss.adversarial > 0 or self.loss.adversarial_unlabelled > 0

    @property
    def needs_shapes(self) -> bool:
        """Whether unpaired masks teach anything."""
        return self.adversarial or self.loss.areas > 0

    def __post_init__(self) -> None:
        if self.loss.teacher > 0 and self.teacher.decay == 0:
            raise ValueError(
                f"loss.teacher={self.loss.teacher:g} needs teacher.decay above 0, such as 0.99: without it there is "
                "no teacher"
            )
        if self.data.supervision == "semi" and not (self.loss.adversarial_unlabelled or self.loss.teacher):
            raise ValueError(
                "data.supervision=semi needs loss.adversarial_unlabelled above 0, such as 0.2, or loss.teacher: "
                "without them the unlabelled patients would teach nothing"
            )
        by_supervision = {"dense": ("loss.dense",), "mixed": ("loss.supervised", "loss.dense")}
        supervising = by_supervision.get(self.data.supervision, ("loss.supervised",))
        weights = {"loss.supervised": self.loss.supervised, "loss.dense": self.loss.dense}
        if self.adversarial and self.loss.dynamic_balance and not any(weights[name] for name in supervising):
            raise ValueError(
                f"{'=0 and '.join(supervising)}=0 with loss.dynamic_balance=true would turn the adversarial terms off, "
                f"as they are scaled to the supervised loss; take a weight above 0, such as {supervising[0]}=1, or "
                "loss.dynamic_balance=false, or set the adversarial weights to 0 as well"
            )
        height, width = self.data.size_px
        if self.optim.batch_size * height * width <= _COARSEST**2:
            raise ValueError(
                f"optim.batch_size=1 with data.size_px={list(self.data.size_px)} leaves one value for each channel at "
                f"1/{_COARSEST} of the size, which batch normalisation cannot use; take 2 or more slices, or a larger "
                "size"
            )
        if self.data.supervision == "mixed" and self.optim.batch_size < 2:
            raise ValueError(
                f"data.supervision=mixed needs optim.batch_size of at least 2, got {self.optim.batch_size}"
            )
