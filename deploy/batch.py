"""Many volumes through one model: output mirrors input, a ledger remembers, one bad volume never stops the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.images import InputImage, expand, find_images
from deploy.ledger import LEDGER, Entry, append, end_last_line, read_finished
from deploy.measures import require_heart, write_measures
from maag.config.schema import DataConfig
from maag.data.label_files import stem_of
from maag.data.volume import save_probabilities
from maag.errors import ConfigError, DataError, MaagError
from maag.inference import PLAIN, Refinement, Runner, segment_fully
from maag.storage import require_writable_directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of the volumes."""

    done: int
    skipped: int
    """Done earlier, by the ledger."""
    failed: tuple[Entry, ...]
    patients_measured: int = 0
    """Rows of `measures.csv`, if it was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types: the counts, and source and error of each failure."""
        failures = [{"source": entry.source, "error": entry.error} for entry in self.failed]
        return {"done": self.done, "skipped": self.skipped, "failed": len(failures), "failures": failures}


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What to do with each volume."""

    refinement: Refinement = PLAIN
    probabilities: bool = False
    """Write them too, as `NAME_probabilities.nii.gz`."""
    measures: bool = False
    """Write `measures.csv` in the end."""

    def identity(self, model_digest: str) -> str:
        """What decides the labels and their company: model and options."""
        options = (self.refinement.name, "probabilities" if self.probabilities else "")
        return "+".join([model_digest, *(option for option in options if option)])


_PLAIN_WORK = Work()


def predict(
    inputs: Sequence[Path],
    runner: Runner,
    data: DataConfig,
    out: Path,
    model_digest: str,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    work: Work = _PLAIN_WORK,
) -> Outcome:
    """Segment every volume in `inputs` and write its labels under `out`.

    Args:
        inputs: NIfTI files, pictures, and folders that are searched through, for DICOM series too; patterns, and text
            files that list any of these. A file's labels get its name in `out`, those of a file in a folder its path
            in that folder.
        runner: runs the model.
        data: the data settings that the model was trained with.
        out: the output folder; also holds `ledger.jsonl`, to which a line is added for every volume.
        model_digest: identifies the model in the ledger.
        resume: skip volumes whose labels this model has written from the very same file.
        progress: called with (volumes done, volumes in all) after each.
        work: what to do with each volume.

    Raises:
        MissingDataError: there is nothing to do.
        ConfigError: labels would be written into the input, or two volumes to one place; or measures are asked for of
            a model that labels no heart.
        StorageError: `out` or the ledger cannot be written.
    """
    if work.measures:
        require_heart(data.classes)
    images = plan(inputs, out)
    identity = work.identity(model_digest)
    require_writable_directory(out)
    finished = read_finished(out / LEDGER) if resume else {}
    end_last_line(out / LEDGER)
    done, failed = 0, []
    for position, image in enumerate(images, start=1):
        entry = _attempt(image, runner, data, out, identity, finished, work)
        if entry is not None:
            append(out / LEDGER, entry)
            if entry.error is None:
                done += 1
            else:
                failed.append(entry)
        if progress:
            progress(position, len(images))
    measured = 0
    if work.measures:
        now = read_finished(out / LEDGER)
        wanted = {image.target.as_posix() for image in images}
        volumes = {name: entry.volumes_ml for name, entry in now.items() if name in wanted}
        measured = write_measures(out, volumes, data.classes)
    return Outcome(
        done=done, skipped=len(images) - done - len(failed), failed=tuple(failed), patients_measured=measured
    )


def plan(inputs: Sequence[Path], out: Path) -> tuple[InputImage, ...]:
    """Find the images in `inputs`; nothing is written.

    Raises:
        MissingDataError: an input does not exist, or holds no image.
        ConfigError: labels would be written into the input, or two images' to one place.
    """
    by_target: dict[Path, InputImage] = {}
    inputs = expand(inputs)
    for given in inputs:
        for image in find_images(given):
            other = by_target.setdefault(image.target, image)
            if other.place.resolve() != image.place.resolve():
                raise ConfigError(
                    f"{other.place} and {image.place} would both be written to {out / image.target}; "
                    "predict them in two calls with different output folders"
                )
    images = tuple(by_target.values())
    _require_outside(inputs, out, images)
    return images


def _require_outside(inputs: Sequence[Path], out: Path, images: Sequence[InputImage]) -> None:
    """Refuse to write where we read: sources would be overwritten, or labels taken for images the next time."""
    folders = {given.resolve() for given in inputs if given.is_dir()}
    sources = {image.place.resolve() for image in images}
    for target in (out, *(out / image.target for image in images)):
        resolved = target.resolve()
        if resolved in sources or folders & {resolved, *resolved.parents}:
            raise ConfigError(f"{target} lies in the input; choose an output folder outside of it")


def _attempt(
    image: InputImage,
    runner: Runner,
    data: DataConfig,
    out: Path,
    identity: str,
    finished: Mapping[str, Entry],
    work: Work,
) -> Entry | None:
    """Segment one volume; None when `finished` and the output show that it is done."""
    started = time.perf_counter()
    digest = error = None
    volumes: tuple[dict[str, float], ...] = ()
    try:
        digest = image.digest()
        target = out / image.target
        before = finished.get(image.target.as_posix())
        if before and (before.sha256, before.model) == (digest, identity) and target.is_file():
            return None
        if not target.resolve().is_relative_to(out.resolve()):
            raise DataError(f"{target}: a link leads out of the output folder; remove the link")
        volumes = _segment_image(image, target, runner, data, work)
    except MaagError as problem:
        error = str(problem)
    except Exception as problem:  # A volume may exhaust the memory, and the next one not.
        error = f"{image.place}: {type(problem).__name__}: {problem}"
    return Entry(
        source=str(image.place),
        target=image.target.as_posix(),
        sha256=digest,
        model=identity,
        seconds=round(time.perf_counter() - started, 3),
        error=error,
        volumes_ml=volumes,
    )


def _segment_image(
    image: InputImage, target: Path, runner: Runner, data: DataConfig, work: Work
) -> tuple[dict[str, float], ...]:
    """Segment all frames of an image, write what was asked for, and tell what each frame holds."""
    frames, volumes, affine = [], [], np.eye(4)
    for volume in image.frames():
        found = segment_fully(volume, runner, data, work.refinement, keep_probabilities=work.probabilities)
        frames.append(found)
        affine = volume.affine
        voxel_ml = math.prod(volume.spacing_mm) / 1000
        counts = np.bincount(found.labels.ravel(), minlength=data.num_classes)
        volumes.append({name: float(counts[value] * voxel_ml) for value, name in enumerate(data.classes) if value})
    if work.probabilities:
        everything = np.stack([frame.probabilities for frame in frames if frame.probabilities is not None])
        save_probabilities(target.with_name(f"{stem_of(target)}_probabilities.nii.gz"), everything, affine)
    # Last, for it is what says that an image is done.
    image.save_labels(target, np.stack([frame.labels for frame in frames]), data.classes)
    return tuple(volumes)
