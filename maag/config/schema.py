"""The configuration of a run: all sections, and the rules across them."""

from __future__ import annotations

from pydantic import Field

from maag.config.data import AugmentConfig, DataConfig
from maag.config.networks import SIZE_MULTIPLE, DiscriminatorConfig, GateConfig, SegmentorConfig
from maag.config.section import section
from maag.config.training import LossConfig, OptimConfig, TeacherConfig, TrainConfig


@section
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
        """Whether there is a discriminator."""
        return self.loss.adversarial > 0 or self.loss.adversarial_unlabelled > 0

    @property
    def needs_shapes(self) -> bool:
        """Whether unpaired masks are used."""
        return self.adversarial or self.loss.areas > 0

    def __post_init__(self) -> None:
        if self.loss.teacher > 0 and self.teacher.decay == 0:
            raise ValueError(
                f"loss.teacher={self.loss.teacher:g} needs teacher.decay above 0, such as 0.99: otherwise there is no "
                "teacher"
            )
        if self.data.supervision == "semi" and not (self.loss.adversarial_unlabelled or self.loss.teacher):
            raise ValueError(
                "data.supervision=semi needs loss.adversarial_unlabelled above 0, such as 0.2, or loss.teacher: "
                "otherwise the unlabelled patients would have no effect"
            )
        by_supervision = {"dense": ("loss.dense",), "mixed": ("loss.supervised", "loss.dense")}
        supervising = by_supervision.get(self.data.supervision, ("loss.supervised",))
        weights = {"loss.supervised": self.loss.supervised, "loss.dense": self.loss.dense}
        if self.adversarial and self.loss.dynamic_balance and not any(weights[name] for name in supervising):
            raise ValueError(
                f"{'=0 and '.join(supervising)}=0 with loss.dynamic_balance=true would turn off the adversarial terms, "
                f"which are scaled to the supervised loss; set a weight above 0, such as {supervising[0]}=1, or "
                "loss.dynamic_balance=false, or the adversarial weights to 0 as well"
            )
        height, width = self.data.size_px
        if self.optim.batch_size * height * width <= SIZE_MULTIPLE**2:
            raise ValueError(
                f"optim.batch_size=1 with data.size_px={list(self.data.size_px)} leaves one value per channel at "
                f"1/{SIZE_MULTIPLE} of the size, for which batch normalisation is undefined; use 2 or more slices, or "
                "a larger size"
            )
        if self.data.supervision == "mixed" and self.optim.batch_size < 2:
            raise ValueError(
                f"data.supervision=mixed needs optim.batch_size of at least 2, got {self.optim.batch_size}"
            )
