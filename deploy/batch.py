"""Many volumes through one model: output mirrors input, a ledger remembers, one bad volume never stops the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.artifact import sha256_of
from maag.config.schema import DataConfig
from maag.data.label_files import LABEL_ENDINGS, stem_of
from maag.data.volume import is_nifti, load_volume, save_labels
from maag.errors import ConfigError, DataError, MaagError, MissingDataError
from maag.inference import Runner, segment
from maag.storage import require_writable_directory, storage_errors

LEDGER = "ledger.jsonl"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the ledger: one attempt at one volume."""

    format_version: int = FORMAT_VERSION
    source: str
    target: str
    """Relative to the output folder, with `/`."""
    sha256: str | None
    """Of the source; None where it could not be read."""
    model: str
    """Digest of the model."""
    seconds: float
    error: str | None
    """One sentence; None where the labels were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of the volumes."""

    done: int
    skipped: int
    """Done earlier, by the ledger."""
    failed: tuple[Entry, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types: the counts, and source and error of each failure."""
        failures = [{"source": entry.source, "error": entry.error} for entry in self.failed]
        return {"done": self.done, "skipped": self.skipped, "failed": len(failures), "failures": failures}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One volume to do."""

    source: Path
    target: Path
    """Relative to the output folder."""


def predict(
    inputs: Sequence[Path],
    runner: Runner,
    data: DataConfig,
    out: Path,
    model_digest: str,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Segment every volume in `inputs` and write its labels under `out`.

    Args:
        inputs: NIfTI files, and folders that are searched through. A file's labels get its name in `out`, those of
            a file in a folder its path in that folder.
        runner: runs the model.
        data: the data settings that the model was trained with.
        out: the output folder; also holds `ledger.jsonl`, to which a line is added for every volume.
        model_digest: identifies the model in the ledger.
        resume: skip volumes whose labels this model has written from the very same file.
        progress: called with (volumes done, volumes in all) after each.

    Raises:
        MissingDataError: there is nothing to do.
        ConfigError: labels would be written into the input, or two volumes to one place.
        StorageError: `out` or the ledger cannot be written.
    """
    jobs = plan(inputs, out)
    require_writable_directory(out)
    finished = _finished(out / LEDGER) if resume else {}
    _end_last_line(out / LEDGER)
    done, failed = 0, []
    for position, job in enumerate(jobs, start=1):
        entry = _attempt(job, runner, data, out, model_digest, finished)
        if entry is not None:
            _append(out / LEDGER, entry)
            if entry.error is None:
                done += 1
            else:
                failed.append(entry)
        if progress:
            progress(position, len(jobs))
    return Outcome(done=done, skipped=len(jobs) - done - len(failed), failed=tuple(failed))


def plan(inputs: Sequence[Path], out: Path) -> tuple[Job, ...]:
    """Find the volumes in `inputs` and where their labels go; nothing is written.

    Raises:
        MissingDataError: an input does not exist, or holds no NIfTI file.
        ConfigError: labels would be written into the input, or two volumes to one place.
    """
    by_target: dict[Path, Job] = {}
    for given in inputs:
        for job in _jobs_of(given):
            other = by_target.setdefault(job.target, job)
            if other.source.resolve() != job.source.resolve():
                raise ConfigError(
                    f"{other.source} and {job.source} would both be written to {out / job.target}; "
                    "predict them in two calls with different output folders"
                )
    jobs = tuple(by_target.values())
    _require_outside(inputs, out, jobs)
    return jobs


def _jobs_of(given: Path) -> list[Job]:
    if given.is_file():
        if not is_nifti(given):
            raise ConfigError(f"{given}: not a NIfTI file by its name; volumes end in .nii or .nii.gz")
        return [Job(source=given, target=Path(given.name))]
    if not given.is_dir():
        raise MissingDataError(f"{given}: there is no such file or folder")
    found = [path for path in sorted(given.rglob("*")) if is_nifti(path) and path.is_file()]
    stems = {path.parent / stem_of(path) for path in found}
    # A data set's folder holds masks and scribbles beside its images; they are no images.
    sources = [path for path in found if not _is_label_of(path.parent / stem_of(path), stems)]
    jobs = [Job(source=path, target=path.relative_to(given)) for path in sources]
    if not jobs:
        raise MissingDataError(f"{given}: no .nii or .nii.gz file in this folder or below it")
    return jobs


def _is_label_of(stem: Path, stems: Collection[Path]) -> bool:
    return any(
        stem.name.endswith(ending) and stem.with_name(stem.name.removesuffix(ending)) in stems
        for ending in LABEL_ENDINGS
    )


def _require_outside(inputs: Sequence[Path], out: Path, jobs: Sequence[Job]) -> None:
    """Refuse to write where we read: sources would be overwritten, or labels taken for images the next time."""
    folders = {given.resolve() for given in inputs if given.is_dir()}
    sources = {job.source.resolve() for job in jobs}
    for target in (out, *(out / job.target for job in jobs)):
        resolved = target.resolve()
        if resolved in sources or folders & {resolved, *resolved.parents}:
            raise ConfigError(f"{target} lies in the input; choose an output folder outside of it")


def _attempt(
    job: Job, runner: Runner, data: DataConfig, out: Path, model_digest: str, finished: dict[str, tuple[str, str]]
) -> Entry | None:
    """Segment one volume; None when `finished` and the output show that it is done."""
    started = time.perf_counter()
    digest = error = None
    try:
        digest = sha256_of(job.source)
        target = out / job.target
        if finished.get(job.target.as_posix()) == (digest, model_digest) and target.is_file():
            return None
        if not target.resolve().is_relative_to(out.resolve()):
            raise DataError(f"{target}: a link leads out of the output folder; remove the link")
        volume = load_volume(job.source)
        save_labels(target, segment(volume, runner, data), job.source, data.classes)
    except MaagError as problem:
        error = str(problem)
    except Exception as problem:  # A volume may exhaust the memory, and the next one not.
        error = f"{job.source}: {type(problem).__name__}: {problem}"
    return Entry(
        source=str(job.source),
        target=job.target.as_posix(),
        sha256=digest,
        model=model_digest,
        seconds=round(time.perf_counter() - started, 3),
        error=error,
    )


def _finished(ledger: Path) -> dict[str, tuple[str, str]]:
    """By target: the digests of source and model of its last attempt, where that succeeded."""
    finished: dict[str, tuple[str, str]] = {}
    if not ledger.exists():
        return finished
    with storage_errors(ledger, "read"):
        lines = ledger.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        try:
            plain = json.loads(line)
            version, target, digests = plain["format_version"], plain["target"], (plain["sha256"], plain["model"])
            failed = plain["error"] is not None
        except (ValueError, KeyError, TypeError):
            continue  # A line cut off by a crash: at worst its volume is done once more.
        if version != FORMAT_VERSION:
            raise ConfigError(f"{ledger}: format_version {version} is unknown; choose another output folder")
        finished.pop(target, None)
        if not failed:
            finished[target] = digests
    return finished


def _end_last_line(ledger: Path) -> None:
    """End a line that a crash has cut off, so that the next one is whole."""
    with storage_errors(ledger):
        if ledger.exists() and (content := ledger.read_bytes()) and not content.endswith(b"\n"):
            with ledger.open("ab") as stream:
                stream.write(b"\n")


def _append(ledger: Path, entry: Entry) -> None:
    with storage_errors(ledger), ledger.open("ab") as stream:
        stream.write(json.dumps(asdict(entry), allow_nan=False).encode() + b"\n")
        stream.flush()
