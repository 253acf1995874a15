"""Small volumes of many patients, and a check of their predicted labels."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

from deploy.runners.opening import open_artifact
from maag.data.files.volume import load_volume
from maag.inference import segment

SHAPE = (18, 17, 3)  # x, y, z


def volume_bytes(seed: int) -> bytes:
    """A gzipped NIfTI file of random voxels."""
    voxels = np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)
    return gzip.compress(nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 8, 1])).to_bytes(), 1)


def volume_name(number: int) -> str:
    return f"site{number % 3}/patient{number:03}.nii.gz"


def assert_labels_match_model(content: bytes, source: bytes, artifact: Path, tmp_path: Path) -> None:
    """Assert that the labels equal the model's prediction for the source in every voxel."""
    image = tmp_path / "source.nii.gz"
    image.write_bytes(source)
    opened = open_artifact(artifact)
    expected = segment(load_volume(image), opened.runner, opened.manifest.config.data)
    found = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(found.dataobj).T, expected)
