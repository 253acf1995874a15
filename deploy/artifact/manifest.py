"""An exported model on disk: a folder with `model.onnx` and `manifest.json`, which says all there is to know of it."""

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
_CHUNK_BYTES = 1 << 20
_SHOWN_PARTS = 3  # RUN/checkpoints/best.safetensors: enough to know it, and no folder of the machine it came from.


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class LabelledClass:
    """What a label value means, and how to draw it."""

    value: int
    name: str
    colour: tuple[int, int, int]
    """(R, G, B) in [0, 255]."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Source:
    """What was exported."""

    checkpoint: str
    sha256: str
    kind: str | None = None
    """best or final."""
    split_digest: str | None = None
    shortfalls: dict[str, float] | None = None
    """How far the model overrates itself, by class, see `maag.expected_dice`; None where its training did not say."""
    orientations: tuple[str, ...] | None = None
    """Codes of its training images, such as `LPS`, the most frequent first; empty where their headers did not record
    them, None where its training did not."""

    @classmethod
    def of(cls, path: Path, sha256: str, info: dict[str, Any]) -> Source:
        """The checkpoint at `path`, with what training wrote in it."""
        return cls(
            checkpoint="/".join(path.parts[-_SHOWN_PARTS:]),
            sha256=sha256,
            kind=info.get("kind"),
            split_digest=info.get("split_digest"),
            shortfalls=info.get("shortfalls"),
            orientations=None if info.get("orientations") is None else tuple(info["orientations"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Parity:
    """How far two runners were apart on the same slices."""

    inputs: str
    num_slices: int
    reference: str
    candidate: str
    max_difference: float
    """Largest absolute difference of a probability."""
    label_agreement: float
    """Part of the pixels with the same label, in [0, 1]."""
    dice: float | None
    """Of the candidate's labels against the reference's: mean over the foreground classes that either has, in [0, 1];
    None where neither has any."""
    foreground_pixels: int | None = None
    """How many the reference labels as something else than background; None in artefacts that were made before it was
    counted."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Manifest:
    """The content of `manifest.json`.

    `classes` and `geometry` say what `config.data` means; they follow from it, and one that does not is refused. The
    words of `geometry` may be those of an earlier maag, its names and numbers may not.
    """

    format_version: Literal[2] = 2
    precision: Precision = "fp32"
    fell_back_from: Precision | None = None
    """The precision that was asked for, where it was not near enough to PyTorch."""
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
    """Inside the network, on the slices that parity was measured on; where the graph computes in fp16, which ends at
    65504."""
    engine: Engine | None = None
    files: dict[str, str]
    """SHA-256, hexadecimal, by file name."""
    versions: dict[str, str]


_ADAPTER = TypeAdapter(Manifest)


def labelled_classes(config: Config) -> tuple[LabelledClass, ...]:
    """The classes by label value, each with the colour that maag draws it in."""
    return tuple(
        LabelledClass(value=value, name=name, colour=colour_of(value)) for value, name in enumerate(config.data.classes)
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` in `folder`. Raises StorageError."""
    write_json(folder / MANIFEST, _ADAPTER.dump_python(manifest, mode="json"))


def is_artifact(folder: Path) -> bool:
    """Whether `folder` looks like an exported model."""
    return (folder / MANIFEST).is_file()


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder` and check every file against its digest.

    Raises:
        MissingDataError: `folder` holds no exported model.
        CheckpointError: the manifest is damaged or changed, or of another version or geometry, or a file is missing or
            not the one it names.
    """
    path = folder / MANIFEST
    if not is_artifact(folder):
        raise MissingDataError(f"{folder}: no exported model here ({MANIFEST} is missing); make one with `maag export`")
    try:
        plain = read_json(path)
        version = plain.get("format_version") if isinstance(plain, dict) else None
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: format_version {version} is not {FORMAT_VERSION}, the one this maag reads; export it again"
            )
        manifest = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {field}: {first['msg']}; export the model again") from error
    except StorageError as error:
        raise CheckpointError(f"{path}: the manifest is damaged; export the model again") from error
    # Of the settings as they stand there: with those that came since, filled in, it would be another digest.
    changed = codec.digest_of_plain(plain["config"]) != manifest.config_digest
    data, geometry = manifest.config.data, manifest.geometry
    described = (labelled_classes(manifest.config), data.spacing_mm, data.size_px)
    if changed or (manifest.classes, geometry.spacing_mm, geometry.size_px) != described:
        raise CheckpointError(f"{path}: the settings were changed after the export; export the model again")
    if not geometry.does_as(describe_geometry(data)):
        raise CheckpointError(
            f"{path}: another version of maag made it, which brought images to the model's grid and labels back in "
            "another way; export the model again"
        )
    for name, digest in manifest.files.items():
        _require_digest(folder, name, digest)
    return manifest


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal, read in pieces. Raises StorageError."""
    digest = hashlib.sha256()
    with storage_errors(path, "read"), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _require_digest(folder: Path, name: str, digest: str) -> None:
    if Path(name).name != name:
        raise CheckpointError(f"{folder / MANIFEST}: files: {name!r} is not a plain file name; export the model again")
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: the manifest names this file, and it is missing; export the model again")
    if sha256_of(path) != digest:
        raise CheckpointError(f"{path}: not the file that was exported (SHA-256 differs); export the model again")
