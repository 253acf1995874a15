"""How the networks learn: what each term weighs, the teacher, the optimisers, and how a run goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from maag.config.section import Count, CountOrZero, NotNegative, Positive, Probability, Seed, section


@section
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


@section
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


@section
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


@section
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
