"""Process one volume: fetch, segment, store, and record in the ledger. Its errors do not affect other volumes."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.inputs.channel_files import fitting
from deploy.inputs.images import InputImage
from deploy.inputs.input_lists import absolute_place
from deploy.inputs.source_kinds import Fetched, Source
from deploy.predicting.job import Job, Task, probabilities_of
from deploy.predicting.ledger import Entry, Ledger, Origin, now, open_ledger
from deploy.predicting.overwrite_guard import OverwriteGuard
from deploy.predicting.volume_status import VolumeStatus, status_of
from maag.data.files.nifti_writing import ProbabilityWriter
from maag.data.files.orientation import Reorientation, orientation_differs
from maag.data.files.volume import Volume
from maag.errors import AccessDeniedError, MaagError
from maag.expected_dice import corrected
from maag.inference import Runner, Segmentation, segment_fully, segment_reoriented
from maag.storage.digests import md5_of
from maag.storage.keys import safe_key
from maag.storage.opening import open_store

_MIN_DECODED = 3
"""Volumes decoded at once that keep a runner on a CPU busy."""
_MAX_DECODED = 8  # limits memory
_DIGITS = 4
"""Decimals of an expected Dice."""


class Results(NamedTuple):
    """Results for each frame of an image, by foreground class."""

    volumes_ml: tuple[dict[str, float], ...] = ()
    expected_dice: tuple[dict[str, float], ...] = ()
    """Corrected by the model's shortfalls; only classes that were labelled."""
    orientation: str | None = None
    """Orientation code of the first frame."""


_NO_RESULTS = Results()


class VolumeProcessor:
    """Processes volumes in any number of threads: while one runs the network, others fetch, decode and store.

    Args:
        job: settings that all volumes share.
        runner: runs the model; called by one thread at a time.

    Raises:
        StorageError: the output cannot be opened.
    """

    def __init__(self, job: Job, runner: Runner) -> None:
        self._job = job
        self._runner = _SerialRunner(runner)
        self._out = open_store(job.out)
        self._ledger: Ledger = open_ledger(self._out, job.folder)
        self._overwrite_guard = OverwriteGuard(self._out)
        self._decoding_slots = threading.Semaphore(max_decoded(runner))

    def process(self, task: Task) -> Entry | VolumeStatus:
        """Segment one volume, or return why it is skipped: it is done by the ledger, or its labels were edited since.

        Raises:
            AccessDeniedError: the output may not be written, so the other volumes would fail too.
            StorageError: the ledger cannot be written.
        """
        source, started = task.source, time.perf_counter()
        recorded_version = None
        with tempfile.TemporaryDirectory(prefix="maag-predict-") as folder:
            inputs, outputs = Path(folder) / "inputs", Path(folder) / "outputs"
            inputs.mkdir()
            fetched: Fetched | None = None
            try:
                version = source.version()
                status = self._status(task, version)
                if status is not VolumeStatus.TO_DO:
                    return status
                safe_key(source.target)
                self._require_overwritable(source, version)
                # Only now: with a version in the ledger, --resume takes a file of the user's for edited labels.
                recorded_version = version
                fetched = source.fetch(inputs, version)
                recorded_version = version = fetched.version
                with self._decoding_slots:
                    results = self._segment(fetched.image, outputs / source.target)
                recorded_version = None
                self._require_overwritable(source, version)  # again, as other jobs may have stored labels meanwhile
            except Exception as error:  # One volume may exhaust the memory and the next may not.
                entry = self._entry(source, recorded_version, started, error=_message_of(error, source, fetched))
                self._ledger.append(entry)
                return entry
            md5s = {path.relative_to(outputs).as_posix(): _md5_of(path) for path in _files_below(outputs)}
            target_md5 = md5s.pop(source.target)
            entry = self._entry(source, version, started, target_md5=target_md5, results=results, side_files=md5s)
            return self._store(outputs, source.target, entry)

    def _require_overwritable(self, source: Source, version: str) -> None:
        self._overwrite_guard.require_overwritable(source.target, Origin(absolute_place(source.place), version))

    def _status(self, task: Task, version: str) -> VolumeStatus:
        target = task.source.target
        requested = (probabilities_of(target),) if self._job.work.probabilities else ()
        return status_of(self._out, target, task.history, version, self._job.identity, requested)

    def _segment(self, image: InputImage, target: Path) -> Results:
        """Segment all frames of an image and write the requested files."""
        data, work = self._job.data, self._job.work
        labels: list[NDArray[np.uint8]] = []
        volumes, expected, affine, orientation = [], [], np.eye(4), None
        path = Path(probabilities_of(str(target)))
        with ProbabilityWriter(path, data.num_classes) if work.probabilities else nullcontext() as probabilities:
            take_probabilities = probabilities.add if probabilities else None
            for volume in (fitting(frame, image, data) for frame in image.frames()):
                segmentation = self._segment_frame(volume, take_probabilities)
                labels.append(segmentation.labels)
                affine = volume.affine
                orientation = orientation or volume.orientation
                volumes.append(_volumes_ml(segmentation.labels, volume.spacing_mm, data.classes))
                dice = corrected(segmentation.expected_dice, self._job.shortfalls)
                expected.append({name: round(value, _DIGITS) for name, value in dice.items()})
            if probabilities:
                probabilities.finish(len(labels), affine)
        image.save_labels(target, np.stack(labels), data.classes, self._job.model_digest)
        return Results(tuple(volumes), tuple(expected), orientation)

    def _segment_frame(
        self, volume: Volume, take_probabilities: Callable[[NDArray[np.float32]], None] | None
    ) -> Segmentation:
        data, work, trained = self._job.data, self._job.work, self._job.orientations
        if work.reorient and volume.orientation and orientation_differs(volume.orientation, trained):
            reorientation = Reorientation.between(volume.orientation, trained[0])
            return segment_reoriented(
                volume, reorientation, self._runner, data, work.refinement, take_probabilities=take_probabilities
            )
        return segment_fully(volume, self._runner, data, work.refinement, take_probabilities=take_probabilities)

    def _store(self, outputs: Path, target: str, entry: Entry) -> Entry:
        """Store the files and the ledger line, then the labels, whose presence marks a volume as done."""
        try:
            if self._overwrite_guard.missing_side_files(target, entry.side_files or {}):
                # If this attempt stops before the labels, the next one must know that these are not the user's files.
                interrupted = f"{entry.source}: interrupted before its labels were stored; continue with --resume"
                self._ledger.append(replace(entry, error=interrupted, target_md5=None, **_NO_RESULTS._asdict()))
            for path in _files_below(outputs):
                if path != outputs / target:
                    self._out.put(path, path.relative_to(outputs).as_posix())
            self._ledger.append(entry)
            self._out.put(outputs / target, target)
        except AccessDeniedError:
            raise
        except MaagError as error:
            failed = replace(
                entry, error=str(error), target_md5=None, finished_at=now(), side_files=None, **_NO_RESULTS._asdict()
            )
            self._ledger.append(failed)
            return failed
        return entry

    def _entry(
        self,
        source: Source,
        version: str | None,
        started: float,
        *,
        error: str | None = None,
        target_md5: str | None = None,
        results: Results = _NO_RESULTS,
        side_files: dict[str, str] | None = None,
    ) -> Entry:
        return Entry(
            source=absolute_place(source.place),
            target=source.target,
            source_version=version,
            model=self._job.identity,
            target_md5=target_md5,
            finished_at=now(),
            seconds=round(time.perf_counter() - started, 3),
            error=error,
            side_files=side_files,
            **results._asdict(),
        )


class _SerialRunner:
    """A runner that several threads may call, one at a time."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._runner.name

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lock:
            return self._runner(images)


def max_decoded(runner: Runner) -> int:
    """How many volumes to decode at once to keep a runner on this machine busy."""
    return max_decoded_with(os.cpu_count() or 1, gpu=any(word in runner.name for word in ("tensorrt", "cuda")))


def max_decoded_with(cores: int, *, gpu: bool) -> int:
    """How many volumes to decode at once to keep a runner busy; a GPU is faster than reading, so all cores read."""
    return min(max(_MIN_DECODED, cores), _MAX_DECODED) if gpu else _MIN_DECODED


def _volumes_ml(
    labels: NDArray[np.uint8], spacing_mm: tuple[float, float, float], classes: Sequence[str]
) -> dict[str, float]:
    voxel_ml = math.prod(spacing_mm) / 1000
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    return {name: float(counts[value] * voxel_ml) for value, name in enumerate(classes) if value}


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _md5_of(path: Path) -> str:
    with path.open("rb") as content:
        return md5_of(content).hexdigest()


def _message_of(error: Exception, source: Source, fetched: Fetched | None) -> str:
    """The message of `error`, with temporary paths replaced by the user's."""
    if not isinstance(error, MaagError):
        return f"{source.place}: {type(error).__name__}: {error}"
    message = str(error)
    for temporary, origin in (fetched.origins if fetched else {}).items():
        message = message.replace(temporary, origin)
    return message if source.place in message else f"{source.place}: {message}"
