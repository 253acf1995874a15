"""DICOM files in a bucket give the same volumes, labels and failures as those in a local folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from background_runner import BackgroundRunner
from folder_bucket import FolderBucket, serve_as_bucket
from phantom_datasets import config_of
from threshold_runner import file_contents

from deploy.inputs.bucket_series import series_among
from deploy.inputs.sources import find_sources
from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from maag.config.data import DataConfig
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import AccessDeniedError
from maag.storage.store import StoredObject


def add_second_phase(study: Path) -> None:
    for path in sorted(study.glob("*_SA*_ph0.[dD]*")):
        shutil.copy(path, path.with_name(path.name.replace("_ph0", "_ph1")))


def halve_rows(path: Path) -> None:
    image = pydicom.dcmread(path)
    image.Rows, image.PixelData = image.Rows // 2, image.PixelData[: len(image.PixelData) // 2]
    image.save_as(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def studies(copy_of: Callable[[str], Path]) -> Path:
    """Studies of two phases: one lacks a slice, one has a damaged slice, and one has slices of three sizes."""
    root = copy_of("lvsc")
    gap, damaged, sizes = (next(root.rglob(f"DET0000{number}01")) for number in (1, 2, 3))
    for path in gap.glob("DET0000101_SA2_ph0.*"):
        path.unlink()
    for study in (gap, damaged):
        add_second_phase(study)
    truncate(damaged / "DET0000201_SA2_ph0.dcm")
    halve_rows(sizes / "DET0000301_SA3_ph0.dcm")
    add_second_phase(sizes)
    truncate(sizes / "DET0000301_SA3_ph0.dcm")
    return root


def segment(given: str | Path, data: DataConfig, out: Path, *, resume: bool = False) -> Outcome:
    return predict([given], Threads(BackgroundRunner(data.num_classes)), data, out, "m", resume)


@pytest.mark.slow
def test_studies_in_a_bucket_are_segmented_and_named_like_those_in_a_folder(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config_of("lvsc", studies).data
    serve_as_bucket(monkeypatch, tmp_path)
    from_folder = segment(studies, data, tmp_path / "here")
    from_bucket = segment(f"s3://bkt/{studies.name}", data, tmp_path / "there")
    found, expected = file_contents(tmp_path / "there"), file_contents(tmp_path / "here")
    del found["ledger.jsonl"], expected["ledger.jsonl"]
    assert found == expected
    # A damaged slice of another size does not affect the others.
    names = {Path(name).name.removesuffix(".nii.gz") for name in found}
    assert {f"DET0000{name}" for name in ("201_ph01", "301_ph00", "301_ph00_size3", "301_ph01_size2")} <= names
    failed = {(entry.target, str(entry.error).replace(str(studies), "s3://bkt/lvsc")) for entry in from_folder.failed}
    assert {(entry.target, entry.error) for entry in from_bucket.failed} == failed
    errors = {Path(target).name.removesuffix(".nii.gz"): str(error) for target, error in failed}
    assert set(errors) == {"DET0000101_ph00", "DET0000101_ph01", "DET0000201_ph00", "DET0000301_ph00_size2"}
    assert "DET0000301_SA3_ph0.dcm: DICOM without Rows" in errors["DET0000301_ph00_size2"]
    assert from_bucket.done == from_folder.done == len(found)


@pytest.mark.slow
def test_resume_redoes_only_the_phases_whose_slices_were_replaced(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config_of("lvsc", studies).data
    serve_as_bucket(monkeypatch, tmp_path)
    given, out = f"s3://bkt/{studies.name}", tmp_path / "out"
    before = segment(given, data, out)
    shutil.copy(next(studies.rglob("DET0000201_SA2_ph1.dcm")), next(studies.rglob("DET0000201_SA2_ph0.dcm")))
    replaced = next(studies.rglob("DET0000301_SA1_ph1.dcm"))
    image = pydicom.dcmread(replaced)
    image.InstanceNumber = 1000
    image.save_as(replaced)
    after = segment(given, data, out, resume=True)
    assert (after.done, after.skipped, len(after.failed)) == (2, before.done - 1, len(before.failed) - 1)
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    done = {Path(line["target"]).name for line in lines[-after.done - len(after.failed) :] if not line["error"]}
    assert done == {"DET0000201_ph00.nii.gz", "DET0000301_ph01.nii.gz"}


class RecordingBucket(FolderBucket):
    """Records what is fetched, and denies access to one study."""

    def __init__(self, root: Path, denied: str = "nothing") -> None:
        super().__init__(root)
        self.fetched: list[str] = []
        self.starts_read: list[str] = []
        self._denied = denied

    def fetch(self, key: str, to: Path, version: str | None = None) -> StoredObject:
        self.fetched.append(key.rpartition("/")[2])
        if self._denied in key:
            raise AccessDeniedError(f"cannot read {key}: denied")
        return super().fetch(key, to, version)

    def read_start(self, key: str, count: int) -> bytes:
        self.starts_read.append(key.rpartition("/")[2])
        return super().read_start(key, count)


def dicom_objects(bucket: FolderBucket) -> Iterator[StoredObject]:
    return (found for found in bucket.list() if found.key.lower().endswith(".dcm"))


def test_only_one_phase_is_fetched_to_distinguish_volumes(studies: Path) -> None:
    bucket = RecordingBucket(studies)
    series = series_among(list(dicom_objects(bucket)), bucket)
    wanted = {
        found.key.rpartition("/")[2] for found in dicom_objects(bucket) if "_SA" in found.key and "_ph0" in found.key
    }
    # Where the first phase of a slice is damaged, the next one is fetched.
    assert sorted(bucket.fetched) == sorted(wanted | {"DET0000201_SA2_ph1.dcm", "DET0000301_SA3_ph1.dcm"})
    assert sorted(found.key for one in series for found in one.objects) == sorted(
        found.key for found in dicom_objects(bucket)
    )


def test_studies_without_access_are_still_split_into_volumes_by_phase(studies: Path) -> None:
    bucket = RecordingBucket(studies, denied="DET0000301")
    names = {one.name for one in series_among(list(dicom_objects(bucket)), bucket)}
    assert {"DET0000301_ph00", "DET0000301_ph01"} == {name for name in names if name and "301_ph" in name}


def test_dicom_files_beside_a_study_form_a_series_named_after_their_folder(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_bucket(monkeypatch, tmp_path)
    study = next(studies.rglob("DET0000201"))
    for path in study.glob("*_ph1.*"):
        path.rename(path.with_name(f"scout{path.name.split('_')[1]}.dcm"))
    expected = {source.target for source in find_sources([study])}
    found = {source.target for source in find_sources([f"s3://bkt/{study.relative_to(tmp_path)}"])}
    assert found == expected == {"DET0000201_LA1_ph0.nii.gz", "DET0000201_ph00.nii.gz", "DET0000201.nii.gz"}
    as_segmentations = find_sources([f"s3://bkt/{study.relative_to(tmp_path)}"], dicom_seg=True)
    assert {source.target for source in as_segmentations} == {target.replace(".nii.gz", ".dcm") for target in expected}


def save_series(folder: Path, name: str, heights: Iterable[int], **tags: object) -> None:
    """Slices of a series, too large to be read whole for their headers."""
    for height in heights:
        save_slice(
            folder / f"{name}{height:02}.dcm",
            np.random.default_rng(height).integers(0, 999, (96, 96)).astype(np.uint16),
            spacing_mm=1,
            thickness_mm=5,
            position=(0, 0, 5.0 * height),
            series=name,
            number=height,
            tags=tags,
        )


@pytest.mark.slow
def test_series_in_one_bucket_folder_are_distinguished_as_in_a_local_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_bucket(monkeypatch, tmp_path)
    given = tmp_path / "given"
    save_series(given / "mixed", "a", range(12))
    save_series(given / "mixed", "b", range(3))
    save_series(given / "mixed", "report", [0], Rows=None)
    save_series(given / "reports", "report", [0], Rows=None)
    save_series(given / "damaged", "a", range(2))
    save_series(given / "damaged", "b", range(2))
    save_series(given / "alone", "a", range(12))
    (given / "damaged" / "b01.dcm").write_bytes(bytes(20_000))
    from_folder = segment(given, DataConfig(), tmp_path / "here")
    from_bucket = segment("s3://bkt/given", DataConfig(), tmp_path / "there")
    found, expected = file_contents(tmp_path / "there"), file_contents(tmp_path / "here")
    del found["ledger.jsonl"], expected["ledger.jsonl"]
    assert found == expected
    assert len({name for name in found if name.startswith("mixed/")}) == 2
    assert {entry.target for entry in from_bucket.failed} == {entry.target for entry in from_folder.failed}
    assert {entry.target.partition("/")[0] for entry in from_bucket.failed} == {"damaged"}
    assert (from_bucket.done, len(from_bucket.failed)) == (from_folder.done, len(from_folder.failed)) == (3, 2)


def test_only_a_few_file_starts_are_read_in_a_folder_with_one_series(tmp_path: Path) -> None:
    save_series(tmp_path / "one", "a", range(30))
    bucket = RecordingBucket(tmp_path)
    (series,) = series_among(list(dicom_objects(bucket)), bucket)
    assert len(series.objects) == 30
    assert len(bucket.starts_read) == 8
    assert {"a00.dcm", "a29.dcm"} <= set(bucket.starts_read)
    assert not bucket.fetched


def test_a_file_whose_header_exceeds_the_start_is_fetched_whole(tmp_path: Path) -> None:
    save_series(tmp_path / "two", "a", range(2))
    save_series(tmp_path / "two", "b", range(2), LongCodeValue="x" * 20_000)
    bucket = RecordingBucket(tmp_path)
    assert len(series_among(list(dicom_objects(bucket)), bucket)) == 2
    assert sorted(bucket.fetched) == ["b00.dcm", "b01.dcm"]


def test_a_series_hidden_among_many_slices_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_bucket(monkeypatch, tmp_path)
    save_series(tmp_path / "most", "a", range(30))
    save_series(tmp_path / "most", "a01b", [0])
    (entry,) = segment("s3://bkt/most", DataConfig(), tmp_path / "out").failed
    assert entry.error == "s3://bkt/most: 2 DICOM series in one folder; give each a folder of its own"


def test_a_series_that_is_too_large_is_reported_by_its_bucket_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_bucket(monkeypatch, tmp_path)
    for number in range(33):
        path = tmp_path / "large" / f"{number}.dcm"
        position = (0, 0, 5.0 * number)
        save_slice(
            path,
            np.zeros((2, 2), np.uint16),
            spacing_mm=1,
            thickness_mm=5,
            position=position,
            series="s",
            number=number,
        )
        image = pydicom.dcmread(path)
        image.Rows = image.Columns = 2**13
        image.save_as(path)
    (entry,) = segment("s3://bkt/large", DataConfig(), tmp_path / "out").failed
    assert str(entry.error).startswith("s3://bkt/large: 33 slices of (8192, 8192) pixels")
