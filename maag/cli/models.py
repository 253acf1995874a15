"""Open the MODEL of a command line: a run, a weights file, or an exported model."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maag.cli.resolving import pick_device
from maag.errors import ConfigError

if TYPE_CHECKING:
    from maag.config.schema import Config
    from maag.data.splits import Split
    from maag.inference import Refinement, Runner


class Network(NamedTuple):
    """A trained network of a model."""

    checkpoint: str
    config: Config
    """What it was trained with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenModel:
    """A model that can be run."""

    runner: Runner
    config: Config
    """Of its first network; all have the same settings of what they see and label."""
    digest: str
    """SHA-256 of its weights or graph."""
    kind: str | None
    """best or final."""
    split_file: Path | None
    """The split.json of the run it came from, if found."""
    networks: tuple[Network, ...]
    """Those that it averages; mostly one."""
    split_digests: tuple[str, ...]
    """Digests of the splits that its networks were trained on, each once; empty where unknown."""
    share_test_patients: bool
    """Whether its networks surely have the same test patients: all are of one split, or folds of one."""
    shortfalls: dict[str, float] | None
    """How much it overestimates its Dice, by class, see `maag.expected_dice`; None for several networks, and if not
    recorded in training."""
    orientations: tuple[str, ...]
    """Codes of its training images, such as `LPS`, the most frequent first; empty where unknown."""
    reason: str
    """What runs it and why, as a line for people."""


def open_model(model: Path, device_name: str, backend: str = "auto") -> OpenModel:
    """Open an exported model with TensorRT or ONNX Runtime, a run or a weights file with PyTorch.

    Raises:
        MissingDataError: there is no model at `model`.
        ConfigError: `backend` (auto, tensorrt, onnx, torch) cannot run what is there.
        CheckpointError: it is damaged.
    """
    from deploy.artifact.manifest import is_artifact

    if is_artifact(model):
        if backend == "torch":
            raise ConfigError(f"{model} is an exported model, but --backend torch needs a run's folder or weights file")
        return _open_exported(model, device_name, backend)
    if backend in ("onnx", "tensorrt") and model.exists():
        way_out = f"`maag export {shlex.quote(str(model))}`"
        raise ConfigError(f"{model} is not an exported model; make one with {way_out}, or use --backend torch")
    return _open_trained(model, device_name)


def read_own_split(opened: OpenModel | None, path: Path, otherwise: str = "") -> Split:
    """The split in the file `path`, which must be one that the model was trained on, if that is known.

    `otherwise` is appended to the error message: another way out than giving the right file.

    Raises:
        DataError: it is not a split.
        ConfigError: it is another split, with which training patients might be used for validation or test.
    """
    from maag.data.splits import Split
    from maag.storage import read_json

    split = Split.from_dict(read_json(path), str(path))
    if opened and opened.split_digests and split.digest not in opened.split_digests:
        trained = " and ".join(opened.split_digests)
        raise ConfigError(
            f"{path}: split {split.digest}, but the model was trained on split {trained}; give its run's split.json "
            f"with --split-file{otherwise}"
        )
    return split


def warn_of_views(model: Path, networks: Sequence[Network], refinement: Refinement) -> None:
    """Warn of views that training of any network had none of; averaging over flips cost a model of ACDC a tenth of its
    Dice.
    """
    from maag.inference import ROTATIONS_DEG

    largest = max(ROTATIONS_DEG)
    if refinement.flips:
        lacking = {each.checkpoint: "augment.flip=0" for each in networks if each.config.augment.flip == 0}
        _warn_of_view(model, len(networks), lacking, "mirrored images", "--flips")
    if refinement.rotations:
        degrees = {each.checkpoint: each.config.augment.rotation_deg for each in networks}
        lacking = {name: f"augment.rotation_deg={most:g}" for name, most in degrees.items() if most < largest}
        _warn_of_view(model, len(networks), lacking, f"images rotated by {largest:g}°", "--rotations")


def _warn_of_view(model: Path, num_networks: int, lacking: Mapping[str, str], view: str, option: str) -> None:
    """Warn of networks that lack this view in training; `lacking` has the setting of each by checkpoint."""
    from maag.cli.terminal import say

    if not lacking:
        return
    if num_networks == 1:
        (setting,) = lacking.values()
        say(f"Warning: {model} was trained without {view} ({setting}): {option} may make its labels worse")
    else:
        names = ", ".join(f"{checkpoint} ({setting})" for checkpoint, setting in lacking.items())
        say(
            f"Warning: {model} averages {num_networks} networks, and training had no {view} for {names}: {option} may "
            "make its labels worse"
        )


def parent_of(path: Path) -> Path:
    """The folder that `path` is in, also for `.` and `..`, of which pathlib returns them themselves or `.`."""
    return path / os.pardir if path.name in ("", os.pardir) else path.parent


def _open_exported(model: Path, device_name: str, backend: str) -> OpenModel:
    from deploy.runners.opening import open_artifact

    pick_device(device_name)  # raises if it is not available
    artifact = open_artifact(model, device_name, backend=backend)  # type: ignore[arg-type] # checked by click
    source = artifact.manifest.source
    digests = _known(each.split_digest for each in source.members or (source,))
    return OpenModel(
        runner=artifact.runner,
        config=artifact.manifest.config,
        digest=artifact.digest,
        kind=source.kind,
        split_file=_existing(parent_of(model) / "split.json"),
        networks=tuple(Network(each.checkpoint, each.config) for each in source.members)
        or (Network(source.checkpoint, artifact.manifest.config),),
        split_digests=digests,
        share_test_patients=len(digests) < 2 or _are_folds_of_one([member.config for member in source.members]),
        shortfalls=source.shortfalls,
        orientations=source.orientations or (),
        reason=artifact.reason,
    )


def _open_trained(model: Path, device_name: str) -> OpenModel:
    from maag.checkpoint import load_segmentor
    from maag.inference import TorchRunner

    trained = load_segmentor(model)
    device = pick_device(device_name)
    place = "the GPU" if device.type == "cuda" else "the CPU"
    return OpenModel(
        runner=TorchRunner(trained.segmentor, device),
        config=trained.config,
        digest=trained.digest,
        kind=trained.info.get("kind"),
        split_file=_existing(parent_of(parent_of(trained.path)) / "split.json"),
        networks=(Network(str(trained.path), trained.config),),
        split_digests=_known([trained.info.get("split_digest")]),
        share_test_patients=True,
        shortfalls=trained.info.get("shortfalls"),
        orientations=tuple(trained.info.get("orientations", ())),
        reason=f"PyTorch on {place}: not an exported model, see `maag export`",
    )


def _known(digests: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(digest for digest in digests if digest is not None))


def _are_folds_of_one(configs: Sequence[Config]) -> bool:
    return all(config.data.folds for config in configs) and len({replace(each.data, fold=1) for each in configs}) == 1


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
