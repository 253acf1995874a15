"""How many volumes are worked on at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bright_runner import DATA

from deploy.predicting.attempt import decoded_at_once
from deploy.predicting.batch import plan
from deploy.predicting.fleet import done_at_once
from deploy.predicting.job import Job, Task, Work
from maag.train.launch.room import Room


def test_a_gpu_is_given_more_volumes_at_once_than_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        for name in ("torch-cuda", "onnx-cuda", "tensorrt"):
            assert decoded_at_once(Named(name)) == expected  # type: ignore[arg-type]
        assert decoded_at_once(Named("onnx-cpu")) == 3  # type: ignore[arg-type]


def test_a_member_of_a_fleet_does_as_many_volumes_at_once_as_a_process_with_its_room(scans: Path, out: Path) -> None:
    job = Job(data=DATA, work=Work(), model_digest="m", out=str(out))
    task = Task(plan([scans], out)[0])
    for cores, expected in ((2, 3), (6, 6), (64, 8)):
        assert done_at_once(task, job, Room(cpus=cores, gpus=1)) == expected
        assert done_at_once(task, job, Room(cpus=cores, gpus=0)) == 3
    for_stores = replace(job, out="s3://bucket/out")
    assert done_at_once(task, for_stores, Room(cpus=2, gpus=0)) == 8
