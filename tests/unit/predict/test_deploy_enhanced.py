"""Enhanced DICOM files are segmented as series, whether given as a folder, a pattern or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from enhanced_dicom import save_enhanced
from folder_bucket import serve_as_bucket
from numpy.typing import NDArray
from pydicom.uid import EnhancedMRImageStorage, SegmentationStorage
from threshold_runner import ThresholdRunner

from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from maag.config.data import DataConfig
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import ConfigError

HEART = DataConfig(classes=("background", "LV"), size_px=(16, 16), spacing_mm=1.0)
RADII = (3, 5, 2)
POSITIONS = 2


def square_pixels(phase: int, position: int) -> NDArray[np.uint16]:
    """A bright square whose width depends on the phase, one pixel to the side in the upper slice."""
    plane = np.full((16, 16), 10, np.uint16)
    radius = RADII[phase]
    plane[8 - radius : 8 + radius, 8 - radius + position : 8 + radius + position] = 110
    return plane


def write_enhanced(path: Path, phases: int = len(RADII), **tags: Any) -> Path:
    order = [(phase, position) for position in reversed(range(POSITIONS)) for phase in range(phases)]
    frames = [
        {"ImagePositionPatient": [0.0, 0.0, 5.0 * position], "NominalCardiacTriggerDelayTime": 30.0 * phase}
        for phase, position in order
    ]
    shared = {"PixelSpacing": [1.0, 1.0], "SliceThickness": 5.0}
    return save_enhanced(path, np.stack([square_pixels(*key) for key in order]), frames, shared=shared, tags=tags)


def write_classic(folder: Path) -> None:
    for phase in range(len(RADII)):
        for position in range(POSITIONS):
            save_slice(
                folder / f"{phase}{position}.dcm",
                square_pixels(phase, position),
                spacing_mm=1,
                thickness_mm=5,
                position=(0.0, 0.0, 5.0 * position),
                series="s",
                number=1,
                tags={"TriggerTime": 30 * phase},
            )


def test_enhanced_and_classic_cines_have_the_same_labels_and_measures(tmp_path: Path, runner: ThresholdRunner) -> None:
    write_enhanced(tmp_path / "enhanced" / "patient007" / "IM0001")
    write_classic(tmp_path / "classic" / "patient007")
    for kind in ("enhanced", "classic"):
        outcome = predict(
            [tmp_path / kind], Threads(runner), HEART, tmp_path / f"{kind}-out", "m", work=Work(measures=True)
        )
        assert (outcome.done, outcome.failed) == (1, ())
    for name in ("patient007.nii.gz", "measures.csv"):
        enhanced, classic = ((tmp_path / f"{kind}-out" / name).read_bytes() for kind in ("enhanced", "classic"))
        assert enhanced == classic
    labels = np.asarray(nibabel.load(tmp_path / "enhanced-out" / "patient007.nii.gz").dataobj).T
    np.testing.assert_array_equal(
        labels, [[square_pixels(phase, position) > 100 for position in range(POSITIONS)] for phase in range(len(RADII))]
    )


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("in/cine.dcm", "cine.nii.gz"),
        ("in/1.2.840", "1.2.840.nii.gz"),
        ("in/*.dcm", "cine.nii.gz"),
        ("in", "in.nii.gz"),
        ("s3://bkt/in", "in.nii.gz"),
    ],
)
def test_an_enhanced_file_is_segmented_as_a_series(
    tmp_path: Path, runner: ThresholdRunner, monkeypatch: pytest.MonkeyPatch, given: str, target: str
) -> None:
    write_enhanced(tmp_path / "in" / ("1.2.840" if given.endswith("840") else "cine.dcm"))
    serve_as_bucket(monkeypatch, tmp_path)
    source = given if given.startswith("s3") else tmp_path / given
    outcome = predict([source], Threads(runner), HEART, tmp_path / "out", "m")
    assert (outcome.done, outcome.failed) == (1, ())
    assert nibabel.load(tmp_path / "out" / target).shape == (16, 16, POSITIONS, len(RADII))


@pytest.mark.parametrize("spoil", ["segmentation", "cut", "text", "no frames"])
def test_a_file_that_is_not_an_enhanced_image_is_refused(tmp_path: Path, runner: ThresholdRunner, spoil: str) -> None:
    kind = SegmentationStorage if spoil == "segmentation" else EnhancedMRImageStorage
    groups = {"PerFrameFunctionalGroupsSequence": None} if spoil == "no frames" else {}
    path = write_enhanced(tmp_path / "in" / "a.dcm", SOPClassUID=kind, **groups)
    if spoil in ("cut", "text"):
        path.write_bytes(path.read_bytes()[:200] if spoil == "cut" else b"a.dcm")
    with pytest.raises(ConfigError, match=r"a\.dcm: .* for a DICOM series give its folder"):
        predict([path], Threads(runner), HEART, tmp_path / "out", "m")
