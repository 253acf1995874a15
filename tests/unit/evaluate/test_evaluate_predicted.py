"""Labels of published data sets from `maag predict`, matched to cases by name and evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from background_runner import BackgroundRunner
from phantom_datasets import config_of
from PIL import Image

from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from maag.data.catalog import reader_of
from maag.data.files.nifti_writing import save_volume
from maag.data.files.pictures import load_picture
from maag.data.files.volume import load_labels
from maag.errors import DataError
from maag.evaluate.measure import evaluate
from maag.evaluate.prediction_files import file_predictor, prediction_files
from maag.evaluate.report import Subject

SUBJECT = Subject(model="runs/one", dataset="acdc", split="val", split_digest="0123", checkpoint_kind="best")


def test_labels_of_a_dicom_cine_are_named_after_its_cases(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("lvsc")
    data = config_of("lvsc", root).data
    reader = reader_of("lvsc")
    # Of another size in the middle, so that a volume has a gap; and a second phase of one study.
    (study,) = root.rglob("DET0000301")
    for path in sorted(study.glob("*_SA3_ph0.*")) + sorted(study.glob("*_SA2_ph0.*")):
        if path.suffix == ".dcm":
            image = pydicom.dcmread(path)
            image.Rows, image.PixelData = image.Rows // 2, image.PixelData[: len(image.PixelData) // 2]
            image.save_as(path)
    for path in list(root.rglob("DET0000101_SA*_ph0.*")):
        shutil.copy(path, path.with_name(path.name.replace("_ph0", "_ph1")))
    cases = reader.find_cases(root, data)
    predicted = predict([root], Threads(BackgroundRunner(data.num_classes)), data, tmp_path / "labels", "m")
    assert predicted.failed == ()
    files = prediction_files(tmp_path / "labels", cases)
    assert {path.name for path in files.values()} == {f"{case.case_id}.nii.gz" for case in cases}
    assert {"DET0000101_ph01", "DET0000301_ph00", "DET0000301_ph00_size2"} <= files.keys()
    # A long-axis image is not a case, and is segmented by itself.
    long_axes = {path.name for path in (tmp_path / "labels").rglob("*.nii.gz")} - {path.name for path in files.values()}
    assert long_axes == {f"{path.stem}.nii.gz" for path in root.rglob("*_LA*.dcm")}
    for case in cases:
        assert load_labels(files[case.case_id], range(2))[0].shape == reader.load_volume(case).shape


def test_phase_with_a_lost_or_damaged_slice_is_not_segmented(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("lvsc")
    data = config_of("lvsc", root).data
    for path in list(root.rglob("DET0000101_SA2_ph0.*")):
        path.unlink()
    for path in list(root.rglob("DET0000201_SA*_ph0.*")):
        shutil.copy(path, path.with_name(path.name.replace("_ph0", "_ph1")))
    damaged = next(root.rglob("DET0000201_SA2_ph0.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    predicted = predict([root], Threads(BackgroundRunner(data.num_classes)), data, tmp_path / "labels", "m")
    gap, unreadable = sorted(str(entry.error) for entry in predicted.failed)
    assert "mm from its neighbour" in gap
    assert str(damaged) in unreadable
    written = {path.name for path in (tmp_path / "labels").rglob("*_ph0*.nii.gz")}
    assert "DET0000201_ph01.nii.gz" in written
    assert not written & {"DET0000101_ph00.nii.gz", "DET0000201_ph00.nii.gz"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "modality"), [("chaos", "t1in"), ("chaos", "t2spir"), ("chaos-ct", None)])
def test_labels_named_after_series_folders_are_matched_to_cases(
    name: str, modality: str | None, phantoms: Path, tmp_path: Path
) -> None:
    data = config_of(name, phantoms / name).data
    data = replace(data, modality=modality) if modality else data
    reader = reader_of(name)
    cases = reader.find_cases(phantoms / name, data)
    predicted = predict([phantoms / name], Threads(BackgroundRunner(data.num_classes)), data, tmp_path / "labels", "m")
    assert predicted.failed == ()
    files = prediction_files(tmp_path / "labels", cases)
    for case in cases:
        folder = case.images[0].parent.relative_to(phantoms / name)
        assert files[case.case_id] == tmp_path / "labels" / f"{folder}.nii.gz"
        mask = reader.load_mask(case, data).labels
        save_volume(files[case.case_id], mask, reader.load_volume(case).affine)
    measured = evaluate(cases, file_predictor(files, data), data, SUBJECT)
    assert measured.mean("dice") == 1.0
    files[cases[-1].case_id].unlink()
    expected_error = (
        rf"{cases[-1].case_id}; each needs a file such as {cases[-1].case_id}\.nii\.gz or \S*{folder.name}\.nii\.gz"
    )
    with pytest.raises(DataError, match=expected_error):
        prediction_files(tmp_path / "labels", cases)


def test_labels_of_a_whole_study_are_not_matched_to_its_cases(phantoms: Path, tmp_path: Path) -> None:
    cases = reader_of("lvsc").find_cases(phantoms / "lvsc", config_of("lvsc", phantoms / "lvsc").data)
    study = tmp_path / "labels" / f"{cases[0].images[0].parent.name}.nii.gz"
    study.parent.mkdir()
    study.touch()
    with pytest.raises(DataError, match=rf"each needs a file such as {cases[0].case_id}\.nii\.gz, anywhere below"):
        prediction_files(study.parent, cases)
    for case in cases:
        (study.parent / f"{case.case_id}.nii.gz").touch()
    assert len(prediction_files(study.parent, cases)) == len(cases)


def test_labels_of_picture_size_are_resampled_to_the_mask_size(phantoms: Path, tmp_path: Path) -> None:
    data = config_of("ppss", phantoms / "ppss").data
    reader = reader_of("ppss")
    case = next(case for case in reader.find_cases(phantoms / "ppss", data) if case.masks)
    volume, mask = reader.load_volume(case), reader.load_mask(case, data).labels
    own = load_picture(case.images[0]).shape
    assert own[1:] == (240, 120) != volume.shape[1:]
    numbers = np.arange(240 * 120).reshape(240, 120) % data.num_classes
    path = tmp_path / "labels.png"
    Image.fromarray(numbers.astype(np.uint8)).save(path)
    found = file_predictor({case.case_id: path}, data)(case, volume).labels
    # The pixel of the picture that each centre of the mask's pixels lies in.
    rows, columns = ((np.arange(160) + 0.5) * 1.5).astype(int), ((np.arange(80) + 0.5) * 1.5).astype(int)
    np.testing.assert_array_equal(found[0], numbers[np.ix_(rows, columns)])
    Image.fromarray(mask[0]).save(path)
    report = evaluate([case], file_predictor({case.case_id: path}, data), data, SUBJECT)
    assert report.mean("dice") == 1.0
    assert report.volume_pairs() == {}  # the pixel size is unknown
    Image.fromarray(mask[0, :100]).save(path)
    with pytest.raises(DataError, match=r"has 100 x 80 pixels, its picture \S+ 240 x 120, measured at 160 x 80"):
        file_predictor({case.case_id: path}, data)(case, volume)
