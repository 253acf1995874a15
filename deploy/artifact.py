"""An exported model on disk: a folder with `model.onnx` and `manifest.json`, which says all there is to know of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from maag.config import codec
from maag.config.schema import Config
from maag.errors import CheckpointError, MissingDataError, StorageError
from maag.storage import building_directory, read_json, storage_errors, write_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
PROBABILITIES = "probabilities"

Precision = Literal["fp32", "fp16", "int8"]

_STRICT = ConfigDict(extra="forbid")
_CHUNK_BYTES = 1 << 20
_SHOWN_PARTS = 3  # RUN/checkpoints/best.safetensors: enough to know it, and no folder of the machine it came from.


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TensorSpec:
    """An input or output of the model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """A name stands for a size that is free, such as `batch`."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Source:
    """What was exported."""

    checkpoint: str
    sha256: str
    kind: str | None = None
    """best or final."""
    split_digest: str | None = None

    @classmethod
    def of(cls, path: Path, sha256: str, info: dict[str, Any]) -> Source:
        """The checkpoint at `path`, with what training wrote in it."""
        return cls(
            checkpoint="/".join(path.parts[-_SHOWN_PARTS:]),
            sha256=sha256,
            kind=info.get("kind"),
            split_digest=info.get("split_digest"),
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


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Manifest:
    """The content of `manifest.json`.

    `config.data` holds what a reader of images needs: classes, spacing_mm, size_px, normalization, padding_label.
    """

    format_version: Literal[1] = 1
    precision: Precision = "fp32"
    fell_back_from: Precision | None = None
    """The precision that was asked for, where it was not near enough to PyTorch."""
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    config: Config
    config_digest: str
    source: Source
    parity: tuple[Parity, ...]
    files: dict[str, str]
    """SHA-256, hexadecimal, by file name."""
    versions: dict[str, str]


_ADAPTER = TypeAdapter(Manifest)


def input_spec(config: Config) -> TensorSpec:
    """The model's input: normalised images of the fixed grid, any number of them."""
    return TensorSpec(name="images", dtype="float32", shape=("batch", config.data.channels, *config.data.size_px))


def output_specs(config: Config) -> tuple[TensorSpec, TensorSpec]:
    """The model's outputs: class probabilities, and the label of the largest."""
    size = config.data.size_px
    return (
        TensorSpec(name=PROBABILITIES, dtype="float32", shape=("batch", config.data.num_classes, *size)),
        TensorSpec(name="labels", dtype="uint8", shape=("batch", *size)),
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
        CheckpointError: the manifest is damaged or of another version, or a file is missing or not the one it names.
    """
    path = folder / MANIFEST
    if not is_artifact(folder):
        raise MissingDataError(f"{folder}: no exported model here ({MANIFEST} is missing); make one with `maag export`")
    try:
        plain = read_json(path)
        version = plain.get("format_version") if isinstance(plain, dict) else None
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{path}: format_version {version} is unknown; this maag reads {FORMAT_VERSION}")
        manifest = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {field}: {first['msg']}; export the model again") from error
    except StorageError as error:
        raise CheckpointError(f"{path}: the manifest is damaged; export the model again") from error
    if codec.digest(manifest.config) != manifest.config_digest:
        raise CheckpointError(f"{path}: the settings were changed after the export; export the model again")
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


@contextmanager
def building_artifact(out: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `out`, in the place of an older artefact there.

    Raises:
        StorageError: `out` holds something else than an artefact, or cannot be written.
    """
    with storage_errors(out):
        if out.exists() and not is_artifact(out) and (not out.is_dir() or any(out.iterdir())):
            raise StorageError(f"cannot write {out}: it holds other files; choose an empty or new folder with --out")
    staging = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.new")
    with building_directory(staging) as folder:
        yield folder
    retired = staging.with_suffix(".old")
    with storage_errors(out):
        if out.exists():
            os.rename(out, retired)
        os.rename(staging, out)
        shutil.rmtree(retired, ignore_errors=True)


def _require_digest(folder: Path, name: str, digest: str) -> None:
    if Path(name).name != name:
        raise CheckpointError(f"{folder / MANIFEST}: files: {name!r} is not a plain file name; export the model again")
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: the manifest names this file, and it is missing; export the model again")
    if sha256_of(path) != digest:
        raise CheckpointError(f"{path}: not the file that was exported (SHA-256 differs); export the model again")
