"""Volumes shared by workers of a Ray cluster on this machine, some of which die."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
import torch
from maag_subprocess import Command, wait_until
from numpy.typing import NDArray
from ray import cloudpickle
from s3_server import BUCKET, Fault, client_of, s3_server

from deploy.predicting.batch import predict
from deploy.predicting.ray_workers import RayWorkers, WorkersPlan
from maag.checkpoint import save_segmentor
from maag.config.codec import override
from maag.config.data import DataConfig
from maag.data.catalog import preset
from maag.errors import CheckpointError
from maag.models.build import build_segmentor

pytestmark = pytest.mark.integration

DATA = DataConfig(classes=("background", "bright"), size_px=(16, 16), spacing_mm=1.0)
POISON = 666.0


def volume_bytes(seed: int) -> bytes:
    voxels = np.random.default_rng(seed).normal(100, 20, (18, 17, 3)).astype(np.float32)
    return gzip.compress(nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 8, 1])).to_bytes(), 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = override(preset("acdc", "fast"), {"data.size_px": [32, 32], "segmentor.width": 4})
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    save_segmentor(path, config, build_segmentor(config).state_dict(), {})
    return path


def test_killed_worker_is_replaced_and_no_stored_volume_is_repeated(weights: Path) -> None:
    with s3_server() as (server, environment):
        client = client_of(environment)
        for place in range(60):
            client.put_object(Bucket=BUCKET, Key=f"in/{place:02}.nii.gz", Body=volume_bytes(place))
        server.faults.add(Fault("slow", "in/*", method="GET", times=60, wait_s=0.03))
        words = ("predict", f"s3://{BUCKET}/in", "--model", weights, "--out", f"s3://{BUCKET}/out", "--workers", 2)
        before = server.count("PUT", "out/*.nii.gz")
        command = Command(*words, "--json", environment=environment)
        wait_until(lambda: server.count("PUT", "out/*.nii.gz") - before >= 10, context=lambda: command.stderr)
        stored = stored_labels(client)
        next(process for process in members_below(command.pid)).kill()
        code, printed = command.wait_for_exit()
        result = json.loads(printed)
        assert (code, result["done"], result["failed"]) == (0, 60, 0), command.stderr
        assert "Lost a worker" in command.stderr
        assert len(stored_labels(client)) == 60
        # An upload that was on its way when its worker died has no answer, and is made again with the same content.
        times = {key: server.count("PUT", key) for key in stored_labels(client)}
        assert {key for key, count in times.items() if count > 1}.isdisjoint(stored), times
        assert set(times.values()) <= {1, 2}, times


def stored_labels(client: Any) -> set[str]:
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="out/").get("Contents", [])
    return {found["Key"] for found in listed if found["Key"].endswith(".nii.gz")}


def members_below(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if "ray::Worker" in child.name()]


class CrashingRunner:
    """A runner that ends its process on some images."""

    name = "taken-down"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if np.isclose(images, 0).all():  # what a constant image is after normalisation
            os._exit(1)
        bright = (images[:, 0] > 0).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


def open_crashing(starts: Path) -> CrashingRunner:
    """A runner; every second worker ends its process at its start. `starts` is a folder in which they are counted."""
    for number in itertools.count(1):
        with suppress(FileExistsError):
            (starts / str(number)).touch(exist_ok=False)
            break
    if number % 2 == 0:
        os._exit(1)
    return CrashingRunner()


def open_damaged() -> CrashingRunner:
    raise CheckpointError("best.safetensors: damaged")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "in").mkdir()
    for place in range(12):
        (tmp_path / "in" / f"{place:02}.nii.gz").write_bytes(volume_bytes(place))
    poison = nibabel.Nifti1Image(np.full((18, 17, 3), POISON, np.float32), np.eye(4))
    (tmp_path / "in" / "05-poison.nii.gz").write_bytes(gzip.compress(poison.to_bytes()))
    return tmp_path / "in"


def test_volume_that_crashes_workers_is_given_up_and_the_rest_predicted(scans: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    plan = WorkersPlan(workers=2, address=None, gpu=False)
    starts = tmp_path / "starts"
    starts.mkdir()
    executor = RayWorkers(partial(open_crashing, starts), plan, messages.append)
    outcome = predict([scans], executor, DATA, tmp_path / "out", "m")
    assert (outcome.done, outcome.skipped) == (12, 0)
    (failed,) = outcome.failed
    assert "05-poison.nii.gz: crashed 2 workers" in str(failed.error)
    assert any("Lost a worker" in sentence for sentence in messages)
    lines = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    # A worker that dies between line and labels leaves a line for labels that are then made again.
    assert len({line["target"] for line in lines if line["error"] is None}) == 12
    assert len(list(starts.iterdir())) >= 7  # the three that failed were not in a row
    assert predict([scans], executor, DATA, tmp_path / "out", "m", True).skipped == 12


def test_model_that_cannot_be_opened_ends_the_prediction_with_the_reason(scans: Path, tmp_path: Path) -> None:
    executor = RayWorkers(open_damaged, WorkersPlan(workers=1, address=None, gpu=False), print)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: damaged"):
        predict([scans], executor, DATA, tmp_path / "out", "m")
