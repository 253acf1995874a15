"""Batch prediction: output mirrors input, a ledger records every attempt, one bad volume never stops the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.inputs.disjoint import require_disjoint
from deploy.inputs.input_lists import local_place, resolved_place
from deploy.inputs.passed_over import sentence
from deploy.inputs.source_kinds import Source
from deploy.inputs.sources import find_sources
from deploy.predicting.executor import Executor
from deploy.predicting.job import Job, Task, Work, probabilities_of
from deploy.predicting.ledger import Entry, History, gather, read_histories
from deploy.predicting.measures import require_distinct_rows, require_heart
from deploy.predicting.tables import NO_TABLES, Tables, require_tables_replaceable, write_tables
from deploy.predicting.volume_status import VolumeStatus
from maag.config.data import DataConfig
from maag.data.files.orientation import orientation_differs
from maag.errors import ConfigError
from maag.storage import require_writable_directory
from maag.storage.keys import is_uri
from maag.storage.opening import open_store

_PLAIN_WORK = Work()
_SEGMENTATION = ".dcm"
"""Suffix of labels that are a DICOM segmentation, and of no others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Volumes by outcome."""

    done: int
    skipped: int
    """Done earlier, by the ledger; includes `kept`."""
    failed: tuple[Entry, ...]
    kept: int = 0
    """Volumes whose labels were edited since; they stay as they are."""
    tables: Tables = NO_TABLES
    orientation_differs: int = 0
    """Of those done: by their headers oriented differently from the training images, and segmented as stored."""
    orientation_unknown: int = 0
    """Of those done: to be reoriented, but segmented as stored, as their orientation is unknown or oblique."""
    passed_over: int = 0
    """Input files that are labels rather than images, or volumes in unsupported formats."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types: the counts, source and error of each failure, and the fields of `Tables` under `tables`."""
        failures = [{"source": entry.source, "error": entry.error} for entry in self.failed]
        counts = {"done": self.done, "skipped": self.skipped, "kept": self.kept, "failed": len(failures)}
        counts["passed_over"] = self.passed_over
        counts["orientation_differs"] = self.orientation_differs
        counts["orientation_unknown"] = self.orientation_unknown
        tables = {**asdict(self.tables), "stale": list(self.tables.stale)}
        return {**counts, "failures": failures, "tables": tables}


def predict(
    inputs: Sequence[str | Path],
    executor: Executor,
    data: DataConfig,
    out: str | Path,
    model_digest: str,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    work: Work = _PLAIN_WORK,
    notify: Callable[[str], None] = lambda sentence: None,
    shortfalls: Mapping[str, float] | None = None,
    orientations: Sequence[str] = (),
) -> Outcome:
    """Segment every volume in `inputs` and write its labels under `out`.

    Args:
        inputs: files, folders, patterns, lists and URIs, see `find_sources`.
        executor: processes the volumes.
        data: the data settings that the model was trained with.
        out: output folder or URI; its ledger gets a line for every volume.
        model_digest: identifies the model in the ledger.
        resume: skip volumes whose labels this model has written from the same source and that still exist, and those
            whose labels were edited since.
        progress: called with (volumes done, total) after each.
        work: what to do with each volume.
        notify: called with a sentence about files that are passed over, and one about the first image that is oriented
            differently from the training images.
        shortfalls: how much the model overestimates its Dice, by class, see `maag.expected_dice`.
        orientations: codes of the training images, such as `LPS`, the most frequent first; empty where unknown.

    Raises:
        MissingDataError: there is no input.
        ConfigError: labels would be written into the input, or two volumes to one path; or measures are requested for
            a model without cardiac classes, for volumes that would share a row, or a file of the user would be
            overwritten; or images are to be reoriented, but the orientation of the training images is unknown.
        StorageError: a store cannot be read, or the output or the ledger cannot be written.
    """
    if work.measures:
        require_heart(data.classes)
    if work.reorient and not orientations:
        raise ConfigError(
            "--reorient: the model does not record the orientation of its training images, as their headers did not, "
            "or an earlier maag trained it; leave --reorient out, and give images oriented like those"
        )
    job = Job(
        data=data,
        work=work,
        model_digest=model_digest,
        out=_plain(out),
        shortfalls=shortfalls or {},
        orientations=tuple(orientations),
    )
    passed_over: dict[str, str] = {}
    sources = plan(
        inputs,
        job.out,
        dicom_seg=work.dicom_seg,
        probabilities=work.probabilities,
        data=data,
        passed_over=passed_over,
    )
    if passed_over:
        notify(sentence(passed_over))
    if work.measures:
        require_distinct_rows(source.target for source in sources)
    if job.folder:
        require_writable_directory(job.folder)
    store = open_store(job.out)
    require_tables_replaceable(store, work)
    histories = read_histories(store) if resume else {}
    tasks = (Task(source, histories.get(source.target, History())) for source in sources)
    count = kept = differing = unknown = 0
    done: set[str] = set()
    failed = []
    for entry in executor(job, tasks):
        count += 1
        if isinstance(entry, VolumeStatus):
            kept += entry is VolumeStatus.EDITED
        elif entry.error is None:
            done.add(entry.target)
            unknown += work.reorient and entry.orientation is None
            if not work.reorient and orientation_differs(entry.orientation, orientations):
                differing += 1
                if differing == 1:
                    notify(_oriented_differently(entry, job))
        else:
            failed.append(entry)
        if progress:
            progress(count, len(sources))
    if not job.folder:
        gather(store)
    unsuccessful = {entry.target for entry in failed}
    targets = [source.target for source in sources if source.target not in unsuccessful]
    tables = write_tables(store, work, targets, data.classes, done=done, kept=kept)
    return Outcome(
        done=len(done),
        skipped=count - len(done) - len(failed),
        failed=tuple(failed),
        kept=kept,
        tables=tables,
        orientation_differs=differing,
        orientation_unknown=unknown,
        passed_over=len(passed_over),
    )


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    dicom_seg: bool = False,
    probabilities: bool = False,
    data: DataConfig | None = None,
    passed_over: MutableMapping[str, str] | None = None,
) -> tuple[Source, ...]:
    """Find the images in `inputs` for a model with these `data` settings (None: one channel); nothing is written.

    Labels among the inputs, and volumes in unsupported formats, are added to `passed_over`, each with the reason.

    Raises:
        MissingDataError: an input does not exist, or contains no image.
        ConfigError: labels would be written into the input, or labels of two images to one path or name; or
            `dicom_seg` is requested and there is no DICOM series.
    """
    by_target: dict[str, Source] = {}
    by_name: dict[str, Source] = {}
    by_file: dict[str, Source] = {}
    for source in find_sources(inputs, dicom_seg=dicom_seg, data=data, passed_over=passed_over):
        by_target.setdefault(source.target, source)
        twin = by_name.setdefault(_unpacked(source.target), source)
        if twin.target != source.target:
            raise ConfigError(
                f"{twin.place} and {source.place} have the same name, so their labels would count as one case; remove "
                "or rename one of them, or predict them in two calls with different output folders"
            )
        for file in (source.target, *((probabilities_of(source.target),) if probabilities else ())):
            other = by_file.setdefault(file, source)
            if resolved_place(other.place) != resolved_place(source.place):
                raise ConfigError(
                    f"{other.place} and {source.place} would both be written to {out}/{file}; "
                    "predict them in two calls with different output folders"
                )
    sources = tuple(by_target.values())
    if dicom_seg and not any(target.endswith(_SEGMENTATION) for target in by_target):
        raise ConfigError(
            f"--dicom-seg: no input is a DICOM series, the first is {sources[0].place}; leave the option out, or give "
            "the folder of a series"
        )
    require_disjoint(inputs, sources, _plain(out))
    return sources


def _oriented_differently(entry: Entry, job: Job) -> str:
    return (
        f"Note: {entry.source} is oriented differently ({entry.orientation}) from the training images "
        f"({' or '.join(job.orientations)}): if the headers are right the model saw it mirrored or rotated; --reorient "
        "reorients such images like those, and their labels back"
    )


def _plain(out: str | Path) -> str:
    place = local_place(out)
    if not place:
        raise ConfigError("the output is empty; give a folder or a URI, '.' for the current folder")
    return place.rstrip("/") if is_uri(place) else place


def _unpacked(file: str) -> str:
    """`a.nii` for both `a.nii` and `a.nii.gz`."""
    return file[: -len(".gz")] if file.lower().endswith(".nii.gz") else file
