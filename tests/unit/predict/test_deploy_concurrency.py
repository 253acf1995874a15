"""How many volumes are processed at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from threshold_runner import DATA, ThresholdRunner, write_volume

from deploy.inputs.images import NiftiImage
from deploy.predicting.batch import plan, predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Job, Task, Work
from deploy.predicting.ray_workers import max_concurrency
from deploy.predicting.volume_processor import max_decoded
from maag.data.files.volume import Volume
from maag.train.launch.room import Room


def test_a_gpu_runner_decodes_more_volumes_at_once_than_a_cpu_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        for name in ("torch-cuda", "onnx-cuda", "tensorrt"):
            assert max_decoded(Named(name)) == expected  # type: ignore[arg-type]
        assert max_decoded(Named("onnx-cpu")) == 3  # type: ignore[arg-type]


def test_volumes_at_once_of_a_fleet_member_follow_its_resources_and_storage(scans: Path, out: Path) -> None:
    job = Job(data=DATA, work=Work(), model_digest="m", out=str(out))
    task = Task(plan([scans], out)[0])
    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        assert max_concurrency(task, job, Room(cpus=cores, gpus=1)) == expected
        assert max_concurrency(task, job, Room(cpus=cores, gpus=0)) == 3
    into_bucket = replace(job, out="s3://bucket/out")
    assert max_concurrency(task, into_bucket, Room(cpus=2, gpus=0)) == 8


class Occupancy:
    """Counts how many threads are inside at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self.peak = 0

    def __enter__(self) -> None:
        with self._changed:
            self._inside += 1
            self.peak = max(self.peak, self._inside)
            self._changed.notify_all()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1

    def wait_for_peak(self, peak: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.peak >= peak, timeout=60)


def test_any_number_of_threads_run_one_volume_and_decode_three_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, decoded = Occupancy(), Occupancy()
    frames = NiftiImage.frames

    class Slow(ThresholdRunner):
        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            with running:
                decoded.wait_for_peak(3)
                time.sleep(0.05)  # More at once would be seen now.
                return super().__call__(images)

    def counted(self: NiftiImage) -> Iterator[Volume]:
        with decoded:
            yield from frames(self)

    monkeypatch.setattr(NiftiImage, "frames", counted)
    for number in range(8):
        write_volume(tmp_path / "scans" / f"{number}.nii.gz", number)
    outcome = predict([tmp_path / "scans"], Threads(Slow(), 8), DATA, tmp_path / "out", "m1")
    assert (outcome.done, running.peak) == (8, 1)
    assert decoded.peak == 3
