"""Settings of training: loss weights, the teacher, the optimisers, and the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from maag.config.section import Count, CountOrZero, NotNegative, Positive, Probability, Seed, section


@section
class LossConfig:
    """The weights of the loss terms."""

    supervised: NotNegative = Field(default=1.0, description="Weight of the loss on scribbled slices.")
    dense: NotNegative = Field(default=1.0, description="Weight of the loss on slices with masks, if mixed or dense.")
    dense_overlap: NotNegative = Field(
        default=0.0, description="Weight of a soft Dice loss, added to the cross-entropy on slices with masks."
    )
    adversarial: NotNegative = Field(
        default=0.1,
        description="Weight of the adversarial loss on supervised slices; if this and the next are 0: no "
        "discriminator.",
    )
    adversarial_unlabelled: NotNegative = Field(
        default=0.2,
        description="Weight of the adversarial loss on a second batch, drawn from all training images; 0: no second "
        "batch, unless a teacher labels unlabelled patients.",
    )
    teacher: NotNegative = Field(
        default=0.0, description="Weight of the teacher's soft labels on unlabelled pixels; 0: none."
    )
    areas: NotNegative = Field(
        default=0.0,
        description="Weight of the area prior: over many batches, each class is to be as large as in unpaired masks.",
    )
    dynamic_balance: bool = Field(
        default=True, description="Scale the adversarial losses by the ratio of supervised to adversarial loss."
    )
    class_weights: Probability = Field(
        default=1.0,
        description="Class weights are this power of n_total / n_class, counted over the batch's labelled pixels; 0 or "
        "false: all pixels have equal weight; true is 1.",
    )


@section
class TeacherConfig:
    """The running average of the segmentor, which is validated and exported, and gives soft labels."""

    decay: float = Field(
        default=0.0, ge=0, lt=1, description="Decay of the running average at each step; 0: no average is kept."
    )
    confidence: float = Field(
        default=0.8, ge=0, lt=1, description="Smallest probability of the most probable class for a soft label."
    )
    rotation_deg: float = Field(
        default=0.0,
        ge=0,
        le=180,
        description="Largest rotation of the slices that the teacher segments, in degrees; models of --teacher average "
        "over 0, ± half of it and ± all of it.",
    )
    gates: NotNegative = Field(
        default=0.0, description="Weight of the soft labels for the gate maps, times loss.teacher; 0: none."
    )
    ramp: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Fraction of training over which the weights of soft labels and loss.areas ramp up.",
    )


@section
class OptimConfig:
    """Optimisers and learning rates."""

    lr: Positive = Field(default=1e-4, description="Highest learning rate of Adam.")
    lr_min: NotNegative = Field(default=1e-5, description="Lowest learning rate.")
    lr_discriminator: Positive = Field(
        default=1e-4, description="Highest learning rate of the discriminator; same schedule."
    )
    schedule: Literal["triangular", "cosine", "poly", "constant"] = Field(
        default="triangular", description="Learning rate schedule; starts at lr_min (triangular) or lr (the others)."
    )
    half_cycle_epochs: Count = Field(default=20, description="Epochs from lowest to highest rate, if triangular.")
    batch_size: Count = Field(default=12, description="Slices in a batch: supervised, unlabelled and real masks each.")
    dense_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Fraction of a batch from patients with masks, if mixed."
    )
    epochs: Count = Field(default=450, description="Passes over the labelled slices.")

    def __post_init__(self) -> None:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min: must not exceed lr ({self.lr}), got {self.lr_min}")


@section
class TrainConfig:
    """The run: seed, validation, checkpoints, speed."""

    seed: Seed = Field(default=1234, description="Seed of weights, sampling, augmentation and noise.")
    validate_every: Count = Field(default=15, description="Epochs between validations in the first half of a run.")
    validate_every_late: Count = Field(default=1, description="Epochs between validations in the second half.")
    patience: CountOrZero = Field(
        default=0, description="Validations without a better Dice before an early stop; 0: never."
    )
    min_delta: NotNegative = Field(default=1e-5, description="Smallest gain in Dice that counts as better.")
    class_offsets: bool = Field(
        default=False,
        description="Fit offsets on the class logits that significantly raise the Dice of three or more validation "
        "patients, and save them in the best and final weights.",
    )
    checkpoint_minutes: Positive = Field(default=5.0, description="Minutes between checkpoints within an epoch.")
    precision: Literal["fp32", "bf16", "auto"] = Field(
        default="fp32",
        description="Precision of forward passes in training; auto: bf16 on GPUs that support it and CPUs with AMX or "
        "AVX512-BF16, otherwise fp32 (on GPUs with PyTorch's default, TF32 convolutions). Weights and losses are "
        "always fp32.",
    )
    compile: bool = Field(
        default=False, description="Compile the networks with torch.compile: faster steps, a slow first one."
    )
    cuda_graph: bool = Field(
        default=True,
        description="On a GPU with one worker, record a step as a CUDA graph and replay it.",
    )
