"""An exported model on disk: a folder with `model.onnx` and `manifest.json`, which describes it completely."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from deploy.artifact.engine import Engine, Precision
from deploy.artifact.geometry import Geometry, describe_geometry
from deploy.artifact.tensors import TensorSpec
from maag.config import codec
from maag.config.schema import Config
from maag.errors import CheckpointError, MissingDataError, StorageError
from maag.labels import colour_of
from maag.storage import read_json, storage_errors, write_json

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
MODEL = "model.onnx"

_STRICT = ConfigDict(extra="forbid")
_SHOWN_PARTS = 3  # RUN/checkpoints/best.safetensors


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class LabelledClass:
    """Meaning and colour of a label value."""

    value: int
    name: str
    colour: tuple[int, int, int]
    """(R, G, B) in [0, 255]."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Member:
    """A network of an ensemble."""

    checkpoint: str
    sha256: str
    kind: str | None
    """best or final."""
    split_digest: str | None
    config: Config
    """What it was trained with."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Source:
    """The exported checkpoint, or those of an ensemble."""

    checkpoint: str
    sha256: str
    kind: str | None = None
    """best or final; None for an ensemble of both."""
    split_digest: str | None = None
    """None for an ensemble of several splits."""
    shortfalls: dict[str, float] | None = None
    """How much the model overestimates its Dice, by class, see `maag.expected_dice`; None for ensembles, and if not
    recorded in training."""
    orientations: tuple[str, ...] | None = None
    """Codes of its training images, such as `LPS`, the most frequent first; empty where their headers did not record
    them, None where its training did not; of an ensemble, those that all its networks were trained on."""
    members: tuple[Member, ...] = ()
    """The networks whose class probabilities are averaged; empty for a single one."""

    @classmethod
    def of(cls, path: Path, sha256: str, info: dict[str, Any]) -> Source:
        """The checkpoint at `path`, with the `info` that training wrote in it."""
        return cls(
            checkpoint=shown_checkpoint(path),
            sha256=sha256,
            kind=info.get("kind"),
            split_digest=info.get("split_digest"),
            shortfalls=info.get("shortfalls"),
            orientations=None if info.get("orientations") is None else tuple(info["orientations"]),
        )


def shown_checkpoint(path: Path) -> str:
    """The end of the path of a weights file, which identifies it without folders of the machine."""
    return "/".join(path.parts[-_SHOWN_PARTS:])


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Parity:
    """Difference of two runners on the same slices."""

    inputs: str
    num_slices: int
    reference: str
    candidate: str
    max_difference: float
    """Largest absolute difference of a probability."""
    label_agreement: float
    """Fraction of pixels with the same label, in [0, 1]."""
    dice: float | None
    """Dice of the candidate's labels against the reference's: mean over the foreground classes that either has, in
    [0, 1]; None if neither has any."""
    foreground_pixels: int | None = None
    """Pixels that the reference labels as foreground; None in artefacts of versions that did not count them."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Manifest:
    """The content of `manifest.json`.

    `classes` and `geometry` follow from `config.data`; a manifest in which they do not is refused. The descriptions in
    `geometry` may be those of an earlier version of maag, its names and numbers may not.
    """

    format_version: Literal[2] = 2
    precision: Precision = "fp32"
    fell_back_from: Precision | None = None
    """The requested precision, if it differed too much from PyTorch."""
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[LabelledClass, ...]
    geometry: Geometry
    config: Config
    config_digest: str
    source: Source
    parity: tuple[Parity, ...]
    largest_activation: float | None = None
    """Largest absolute activation on the slices that parity was measured on, for fp16 graphs only; the maximum of fp16
    is 65504."""
    engine: Engine | None = None
    files: dict[str, str]
    """SHA-256, hexadecimal, by file name."""
    versions: dict[str, str]


_ADAPTER = TypeAdapter(Manifest)


def labelled_classes(config: Config) -> tuple[LabelledClass, ...]:
    """The classes by label value, with maag's colours."""
    return tuple(
        LabelledClass(value=value, name=name, colour=colour_of(value)) for value, name in enumerate(config.data.classes)
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` to `folder`. Raises StorageError."""
    plain = _ADAPTER.dump_python(manifest, mode="json")
    if not manifest.source.members:
        del plain["source"]["members"]  # unknown to versions without ensembles, which can run all other models
    write_json(folder / MANIFEST, plain)


def is_artifact(folder: Path) -> bool:
    """Whether `folder` looks like an exported model."""
    return (folder / MANIFEST).is_file()


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder` and check every file against its digest.

    Raises:
        MissingDataError: `folder` holds no exported model.
        CheckpointError: the manifest is damaged, edited, or of another version or geometry, or a file is missing or has
            another digest.
    """
    path = folder / MANIFEST
    if not is_artifact(folder):
        raise MissingDataError(f"{folder}: no exported model here ({MANIFEST} is missing); make one with `maag export`")
    try:
        plain = read_json(path)
        version = plain.get("format_version") if isinstance(plain, dict) else None
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: format_version is {version}, but this maag reads {FORMAT_VERSION}; export the model again"
            )
        manifest = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {field}: {first['msg']}; export the model again") from error
    except StorageError as error:
        raise CheckpointError(f"{path}: the manifest is damaged; export the model again") from error
    # Of the settings in the file: defaults of newer settings would change the digest.
    changed = codec.digest_of_plain(plain["config"]) != manifest.config_digest
    data, geometry = manifest.config.data, manifest.geometry
    described = (labelled_classes(manifest.config), data.spacing_mm, data.size_px)
    if changed or (manifest.classes, geometry.spacing_mm, geometry.size_px) != described:
        raise CheckpointError(f"{path}: the settings were edited after the export; export the model again")
    if not geometry.does_as(describe_geometry(data)):
        raise CheckpointError(
            f"{path}: it is from another version of maag, which preprocessed images or resampled labels differently; "
            "export the model again"
        )
    for name, digest in manifest.files.items():
        _require_digest(folder, name, digest)
    return manifest


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises StorageError."""
    with storage_errors(path, "read"), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_digest(folder: Path, name: str, digest: str) -> None:
    if Path(name).name != name:
        raise CheckpointError(f"{folder / MANIFEST}: files: {name!r} is not a plain file name; export the model again")
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: this file of the manifest is missing; export the model again")
    if sha256_of(path) != digest:
        raise CheckpointError(f"{path}: not the file that was exported (SHA-256 differs); export the model again")
