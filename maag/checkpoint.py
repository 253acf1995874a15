"""Checkpoint files: written atomically, and refused when damaged.

`last.pt` holds the whole training state, for a resume. `best.safetensors` and `final.safetensors` hold the segmentor
alone, with its configuration in the header, for everything after training.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from maag.config import codec
from maag.config.schema import Config
from maag.errors import CheckpointError, MissingDataError, first_line
from maag.models.build import build_segmentor
from maag.models.segmentor import Segmentor
from maag.storage import replacing, require_regular_file, storage_errors

FORMAT_VERSION = 1
LAST = "last.pt"
BEST = "best.safetensors"
FINAL = "final.safetensors"
_UNREADABLE = (RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


class TrainedSegmentor(NamedTuple):
    """A trained segmentor, loaded from a file."""

    segmentor: Segmentor
    """In evaluation mode, on the CPU."""
    config: Config
    info: dict[str, Any]
    """Provenance and validation results: `kind` (best or final), `step`, `dice`, `split_digest`, `data_digest`; the
    `class_offsets` in its last bias, if any were fitted; and, if its run ended, the `shortfalls` of
    `maag.expected_dice`."""
    path: Path
    digest: str
    """SHA-256 of the file, hexadecimal."""


def save_state(path: Path, config: Config, state: dict[str, Any]) -> None:
    """Write a training state, of tensors and plain types only, atomically. Raises StorageError."""
    content = {"format_version": FORMAT_VERSION, "config": codec.to_dict(config), "state": state}
    # Through memory, because torch's own writer hides the OSError of a full disk in a RuntimeError.
    packed = io.BytesIO()
    torch.save(content, packed)
    with replacing(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def load_state(path: Path, device: torch.device) -> tuple[Config, dict[str, Any]]:
    """Read what `save_state` wrote; no code in the file is executed.

    Raises:
        MissingDataError: there is no such file.
        CheckpointError: it is damaged or has another format version.
        StorageError: it cannot be read.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: there is no checkpoint here to resume from; start without --resume")
    # Through memory, because torch's own reader raises an OSError for some truncated files.
    with storage_errors(path, "read"):
        packed = io.BytesIO(path.read_bytes())
    try:
        content = torch.load(packed, map_location=device, weights_only=True)
        version, plain, state = content["format_version"], content["config"], content["state"]
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path}: the checkpoint is damaged ({first_line(error)}); restore it from a copy"
        ) from error
    _require_version(path, version)
    return codec.from_dict(plain), state


def save_segmentor(path: Path, config: Config, weights: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write a segmentor's weights with its configuration and `info` atomically. Raises StorageError."""
    header = {
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(codec.to_dict(config)),
        "info": json.dumps(info),
    }
    content = safetensors_bytes({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, header)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_segmentor(model: Path) -> TrainedSegmentor:
    """Load the best segmentor of a run folder, or the segmentor in a `.safetensors` file.

    Raises:
        MissingDataError: there is neither at `model`.
        CheckpointError: the file is damaged, has another format version, or does not fit its own configuration.
        StorageError: the file cannot be read.
    """
    path = find_weights(model)
    require_regular_file(path)  # safetensors reports a file without read permission as missing.
    try:
        with storage_errors(path, "read"), safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        version, plain, info = int(header["format_version"]), json.loads(header["config"]), json.loads(header["info"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a segmentor of maag, or damaged ({first_line(error)}); give a run folder or its "
            f"checkpoints/{BEST}"
        ) from error
    _require_version(path, version)
    config = codec.from_dict(plain)
    segmentor = build_segmentor(config)
    try:
        segmentor.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit the configuration beside them") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return TrainedSegmentor(segmentor.eval(), config, info, path, digest)


def find_weights(model: Path) -> Path:
    """The weights file of `model`: the file itself, or the best (if missing, the final) one of a run folder.

    Raises MissingDataError if there is none.
    """
    if model.is_file():
        return model
    for name in (BEST, FINAL):
        if (model / "checkpoints" / name).is_file():
            return model / "checkpoints" / name
    if not model.exists():
        raise MissingDataError(
            f"{model}: there is no such path; give a run folder, a weights file or, for inference, an exported model"
        )
    raise MissingDataError(
        f"{model}: neither a run folder with checkpoints/{BEST} nor a weights file; train one with `maag train`, or, "
        "if this is an exported model, give the run that it came from"
    )


def _require_version(path: Path, version: object) -> None:
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version {version} is unknown; this maag reads {FORMAT_VERSION}")
