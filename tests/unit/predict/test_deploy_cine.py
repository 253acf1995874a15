"""Cardiac cines, segmented and measured frame by frame."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from threshold_runner import DATA, ThresholdRunner

from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from maag.config.data import DataConfig
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import ConfigError

HEART = DataConfig(classes=("background", "LV"), size_px=(16, 16), spacing_mm=1.0)


def write_cine(path: Path, radii: list[int]) -> Path:
    """Write two slices with a bright square, of the given radius in each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).normal(10, 1, (16, 16, 2, len(radii))).astype(np.float32)
    for frame, radius in enumerate(radii):
        voxels[8 - radius : 8 + radius, 8 - radius : 8 + radius, :, frame] += 100
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0])), path)
    return path


def test_all_frames_of_a_cine_are_segmented_and_measured(tmp_path: Path, runner: ThresholdRunner) -> None:
    source = write_cine(tmp_path / "in" / "patient007.nii.gz", [3, 5, 2])
    work = Work(measures=True, probabilities=True)
    outcome = predict([source], Threads(runner), HEART, tmp_path / "out", "m1", work=work)
    assert (outcome.done, outcome.tables.patients_measured) == (1, 1)
    image = nibabel.load(tmp_path / "out" / "patient007.nii.gz")
    assert image.shape == (16, 16, 2, 3)
    assert image.header.get_data_dtype() == np.uint8
    assert [int(np.asarray(image.dataobj)[..., frame].sum()) for frame in range(3)] == [2 * 36, 2 * 100, 2 * 16]
    probabilities = nibabel.load(tmp_path / "out" / "patient007_probabilities.nii.gz")
    assert probabilities.shape == (16, 16, 2, 3, 2)
    np.testing.assert_array_equal(np.asarray(probabilities.dataobj).argmax(axis=4), np.asarray(image.dataobj))
    assert (tmp_path / "out" / "measures.csv").read_text().splitlines() == [
        "patient,ed_frame,es_frame,LV_edv_ml,LV_esv_ml,LV_sv_ml,LV_ef_percent",
        "patient007,2,3,1.0,0.16,0.84,84.0",
    ]


def test_measures_pair_files_of_one_patient_and_are_rebuilt_from_the_ledger(
    tmp_path: Path, runner: ThresholdRunner
) -> None:
    scans = tmp_path / "in"
    write_cine(scans / "p1" / "patient001_frame01.nii.gz", [4])
    write_cine(scans / "p1" / "patient001_frame12.nii.gz", [2])
    write_cine(scans / "patient002_frame01.nii.gz", [3])
    work = Work(measures=True)
    predict([scans], Threads(runner), HEART, tmp_path / "out", "m1", work=work)
    rows = (tmp_path / "out" / "measures.csv").read_text().splitlines()[1:]
    assert rows == ["p1/patient001,1,12,0.64,0.16,0.48,75.0", "patient002,,,,,,"]
    (tmp_path / "out" / "measures.csv").unlink()
    again = predict([scans], Threads(runner), HEART, tmp_path / "out", "m1", resume=True, work=work)
    assert (again.done, again.skipped) == (0, 3)
    assert (tmp_path / "out" / "measures.csv").read_text().splitlines()[1:] == rows
    with pytest.raises(ConfigError, match="--measures needs a model that labels LV"):
        predict([scans], Threads(runner), DATA, tmp_path / "other", "m1", work=work)


def test_measures_of_earlier_calls_are_kept_while_their_labels_exist(tmp_path: Path, runner: ThresholdRunner) -> None:
    scans, out, work = tmp_path / "in", tmp_path / "out", Work(measures=True)
    first, second, cine = (
        write_cine(scans / "patient001_frame01.nii.gz", [4]),
        write_cine(scans / "patient001_frame12.nii.gz", [2]),
        write_cine(scans / "patient002.nii.gz", [5, 3]),
    )

    def rows(*sources: Path) -> list[str]:
        outcome = predict(sources, Threads(runner), HEART, out, "m1", work=work)
        found = (out / "measures.csv").read_text().splitlines()[1:]
        assert outcome.tables.patients_measured == len(found)
        return found

    # Volumes of other classes have no row in the table.
    predict([write_cine(scans / "patient003.nii.gz", [5, 3])], Threads(runner), DATA, out, "m1")
    whole = ["patient001,1,12,0.64,0.16,0.48,75.0", "patient002,1,2,1.0,0.36,0.64,64.0"]
    assert rows(first) == ["patient001,,,,,,"]
    assert rows(cine) == ["patient001,,,,,,", whole[1]]
    assert rows(second) == whole
    (out / "patient001_frame01.nii.gz").unlink()
    assert rows(cine) == ["patient001,,,,,,", whole[1]]
    # One file of the whole patient replaces earlier files of its frames.
    assert rows(write_cine(scans / "patient001.nii.gz", [4, 2])) == ["patient001,1,2,0.64,0.16,0.48,75.0", whole[1]]


def test_measuring_files_with_one_name_and_two_suffixes_is_refused(tmp_path: Path, runner: ThresholdRunner) -> None:
    for number, name in enumerate(("a.nii", "a.nii.gz")):
        write_cine(tmp_path / "in" / name, [3 + number])
    with pytest.raises(ConfigError, match=r"a\.nii and .*a\.nii\.gz have the same name"):
        predict([tmp_path / "in"], Threads(runner), HEART, tmp_path / "out", "m1", work=Work(measures=True))
    assert not (tmp_path / "out").exists()


def write_dicom_cine(folder: Path, cine: Path) -> list[Path]:
    """Write the cine as one DICOM series with unordered file names."""
    folder.mkdir(parents=True)
    frames = np.asarray(nibabel.load(cine).dataobj).T.round().astype(np.uint16)  # (T, Z, Y, X)
    paths = []
    for phase, frame in enumerate(frames):
        for place, pixels in enumerate(frame):
            paths.append(folder / f"{(7 * len(paths)) % 11}.dcm")
            tags = {"TriggerTime": 30.0 * phase + 2 * place}
            position = (0.0, 0.0, 5.0 * place)
            save_slice(
                paths[-1], pixels, spacing_mm=1, thickness_mm=5, position=position, series="s", number=1, tags=tags
            )
    return paths


def test_a_cine_in_one_dicom_series_is_segmented_and_measured_phase_by_phase(
    tmp_path: Path, runner: ThresholdRunner
) -> None:
    cine = write_cine(tmp_path / "nifti" / "patient007.nii.gz", [3, 5, 2])
    write_dicom_cine(tmp_path / "dicom" / "patient007", cine)
    work = Work(measures=True, probabilities=True)
    for kind in ("nifti", "dicom"):
        outcome = predict([tmp_path / kind], Threads(runner), HEART, tmp_path / f"{kind}-out", "m1", work=work)
        assert (outcome.done, outcome.failed) == (1, ())
    for name in ("patient007.nii.gz", "patient007_probabilities.nii.gz"):
        one, other = (nibabel.load(tmp_path / f"{kind}-out" / name) for kind in ("nifti", "dicom"))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
        np.testing.assert_allclose(other.affine, np.diag([-1.0, -1.0, 5.0, 1.0]))  # patient coordinates
    measured = [(tmp_path / f"{kind}-out" / "measures.csv").read_text() for kind in ("nifti", "dicom")]
    assert measured[0] == measured[1]


def test_a_dicom_segmentation_of_a_cine_is_refused(tmp_path: Path, runner: ThresholdRunner) -> None:
    write_dicom_cine(tmp_path / "in" / "p", write_cine(tmp_path / "p.nii.gz", [3, 5, 2]))
    outcome = predict([tmp_path / "in"], Threads(runner), HEART, tmp_path / "out", "m1", work=Work(dicom_seg=True))
    (failure,) = outcome.failed
    assert "a cine of 3 phases, and a DICOM segmentation is of one volume; leave out --dicom-seg" in str(failure.error)


def test_a_cine_with_an_incomplete_phase_is_refused(tmp_path: Path, runner: ThresholdRunner) -> None:
    paths = write_dicom_cine(tmp_path / "in" / "p", write_cine(tmp_path / "p.nii.gz", [3, 5, 2]))
    paths[-1].unlink()
    (failure,) = predict([tmp_path / "in"], Threads(runner), HEART, tmp_path / "out", "m1").failed
    assert "a volume has one at each and a cine one per phase" in str(failure.error)
