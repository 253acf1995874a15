"""The checkpoints of a run: the provenance of their weights, and what must match when a run resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from maag import checkpoint
from maag.checkpoint import TrainedSegmentor
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData, data_changed, joined_digest
from maag.data.splits import Split
from maag.errors import CheckpointError
from maag.train.folder import RunFolder
from maag.train.offsets import with_offsets
from maag.train.state import TrainState
from maag.train.validate import ValidationDice


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Provenance of a run's weights, stored in each of its checkpoints."""

    config_digest: str
    split_digest: str
    data_digest: str
    split_scheme: str
    teachers: list[str]
    """Digests of the finished models that teach, in order."""
    orientations: list[str]
    """Codes of the training images, such as `LPS`, the most frequent first; empty where unknown."""


def origin_of(
    config: Config,
    prepared: PreparedData,
    split: Split,
    shapes: PreparedData | None,
    teachers: Sequence[TrainedSegmentor],
) -> Origin:
    """The provenance of weights trained on this data; `shapes` is a prepared set with the discriminator's masks."""
    training = {*split.scribbled, *split.dense, *split.unlabelled}
    counted = Counter(each.orientation for each in prepared.cases if each.orientation and each.patient_id in training)
    return Origin(
        config_digest=codec.digest(config),
        split_digest=split.digest,
        data_digest=joined_digest(prepared, shapes),
        split_scheme=split.scheme,
        teachers=[teacher.digest for teacher in teachers],
        orientations=[orientation for orientation, _ in counted.most_common()],
    )


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Writes `state` to the checkpoints of `run`, and restores it."""

    run: RunFolder
    config: Config
    state: TrainState
    origin: Origin

    def save_last(self) -> None:
        """Save the whole state. Raises StorageError."""
        run = asdict(self.origin)
        checkpoint.save_state(self.run.last, self.config, {**self.state.state_dict(), "run": run})

    def save_best(self, dice: ValidationDice) -> None:
        """Save the best weights, with their validation `dice`. Raises StorageError."""
        self._save_segmentor(self.run.best, "best", dice)

    def save_final(self, dice: ValidationDice) -> None:
        """Save the final weights, with their validation `dice`. Raises StorageError."""
        self._save_segmentor(self.run.final, "final", dice)

    def _save_segmentor(self, path: Path, kind: str, dice: ValidationDice) -> None:
        info = {
            **asdict(self.origin),
            "kind": kind,
            "step": self.state.progress.step,
            "dice": dice.mean,
            "dice_per_class": dice.per_class,
            **({"class_offsets": dice.offsets} if dice.offsets else {}),
        }
        weights = with_offsets(self.state.eval_segmentor.state_dict(), dice.offsets)
        checkpoint.save_segmentor(path, self.config, weights, info)

    def restore(self, device: torch.device, *, other_settings: bool) -> None:
        """Restore the state that `save_last` wrote.

        Raises:
            CheckpointError: it is damaged, has other data, patients or teachers, or settings that may not differ.
            StorageError: it cannot be read.
        """
        saved_config, saved = checkpoint.load_state(self.run.last, device)
        self._require_same_origin(saved["run"])
        if not other_settings and _without_length(saved_config) != _without_length(self.config):
            raise CheckpointError(
                f"{self.run.last}: the settings have changed; on a resume only optim.epochs and train.* but train.seed "
                "may change"
            )
        self.state.load_state_dict(saved)

    def _require_same_origin(self, saved: dict[str, Any]) -> None:
        last, here = self.run.last, self.origin
        if data_changed(saved["data_digest"], here.data_digest):
            raise CheckpointError(
                f"{last}: the run was trained on other data ({saved['data_digest']}) than are here now "
                f"({here.data_digest}); restore the original data set, or start a new run"
            )
        if saved["split_digest"] != here.split_digest:
            raise CheckpointError(
                f"{last}: the run was trained on split {saved['split_digest']}, not {here.split_digest}, and may have "
                "learnt from patients who now validate or test; restore its "
                f"{self.run.split.name}, or start a new run"
            )
        teachers = saved.get("teachers", [])
        if teachers != here.teachers:
            raise CheckpointError(
                f"{last}: the run had finished models {teachers} as teachers, and --teacher now gives "
                f"{here.teachers}; name the same with --teacher, in the same order"
            )


def _without_length(config: Config) -> dict[str, Any]:
    plain = codec.to_dict(config)
    seed = plain.pop("train")["seed"]
    del plain["optim"]["epochs"]
    return {**plain, "seed": seed}
