"""A runner that thresholds intensity, and volumes with a bright foreground."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from maag.config.data import DataConfig

DATA = DataConfig(classes=("background", "bright"), size_px=(16, 16), spacing_mm=1.0)


class ThresholdRunner:
    """Segments pixels above the middle of the batch's intensity range as foreground."""

    name = "threshold"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        bright = (images[:, 0] > (images.min() + images.max()) / 2).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


def write_volume(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).normal(10, 1, (14, 15, 2)).astype(np.float32)
    voxels[4:9, 5:9] += 100
    affine = np.array([[-1.0, 0, 0, 30], [0, 1.0, 0.1, -20], [0, 0, 7.0, 5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def run(scans: Path, out: Path, runner: ThresholdRunner, *, model: str = "m1", resume: bool = False) -> Outcome:
    return predict([scans], Threads(runner), DATA, out, model, resume)


def read_ledger(out: Path) -> list[dict[str, Any]]:
    """The entries of `ledger.jsonl`, oldest first."""
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def file_contents(folder: Path) -> dict[str, bytes]:
    """Contents of all files below `folder`, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
