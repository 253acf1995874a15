"""DICOM files of a bucket: the same volumes, labels and failures as of a folder here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from bright_runner import tree
from folder_bucket import Bucket, serve
from native_phantoms import config_of
from nothing_runner import Nothing

from deploy.inputs.bucket_series import series_among
from deploy.inputs.sources import find_sources
from deploy.predicting.batch import Outcome, predict
from deploy.predicting.crew import Threads
from maag.config.data import DataConfig
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import AccessDeniedError
from maag.storage.store import StoredObject


def second_phase(study: Path) -> None:
    for path in sorted(study.glob("*_SA*_ph0.[dD]*")):
        shutil.copy(path, path.with_name(path.name.replace("_ph0", "_ph1")))


def halve(path: Path) -> None:
    image = pydicom.dcmread(path)
    image.Rows, image.PixelData = image.Rows // 2, image.PixelData[: len(image.PixelData) // 2]
    image.save_as(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def studies(copy_of: Callable[[str], Path]) -> Path:
    """A phase without a slice, one with a damaged one, and two of a study whose slices are of three sizes."""
    root = copy_of("lvsc")
    gap, damaged, sizes = (next(root.rglob(f"DET0000{number}01")) for number in (1, 2, 3))
    for path in gap.glob("DET0000101_SA2_ph0.*"):
        path.unlink()
    for study in (gap, damaged):
        second_phase(study)
    cut(damaged / "DET0000201_SA2_ph0.dcm")
    halve(sizes / "DET0000301_SA3_ph0.dcm")
    second_phase(sizes)
    cut(sizes / "DET0000301_SA3_ph0.dcm")
    return root


def outcome(given: str | Path, data: DataConfig, out: Path, *, resume: bool = False) -> Outcome:
    return predict([given], Threads(Nothing(data.num_classes)), data, out, "m", resume)


def test_studies_of_a_bucket_are_segmented_and_named_as_those_of_a_folder(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config_of("lvsc", studies).data
    serve(monkeypatch, tmp_path)
    here = outcome(studies, data, tmp_path / "here")
    there = outcome(f"s3://bkt/{studies.name}", data, tmp_path / "there")
    found, expected = tree(tmp_path / "there"), tree(tmp_path / "here")
    del found["ledger.jsonl"], expected["ledger.jsonl"]
    assert found == expected
    # Where one of another size is damaged, the others lose nothing.
    names = {Path(name).name.removesuffix(".nii.gz") for name in found}
    assert {f"DET0000{name}" for name in ("201_ph01", "301_ph00", "301_ph00_size3", "301_ph01_size2")} <= names
    failed = {(entry.target, str(entry.error).replace(str(studies), "s3://bkt/lvsc")) for entry in here.failed}
    assert {(entry.target, entry.error) for entry in there.failed} == failed
    errors = {Path(target).name.removesuffix(".nii.gz"): str(error) for target, error in failed}
    assert set(errors) == {"DET0000101_ph00", "DET0000101_ph01", "DET0000201_ph00", "DET0000301_ph00_size2"}
    assert "DET0000301_SA3_ph0.dcm: DICOM without Rows" in errors["DET0000301_ph00_size2"]
    assert there.done == here.done == len(found)


def test_a_phase_whose_slice_was_replaced_is_done_again_and_no_other(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config_of("lvsc", studies).data
    serve(monkeypatch, tmp_path)
    given, out = f"s3://bkt/{studies.name}", tmp_path / "out"
    before = outcome(given, data, out)
    shutil.copy(next(studies.rglob("DET0000201_SA2_ph1.dcm")), next(studies.rglob("DET0000201_SA2_ph0.dcm")))
    replaced = next(studies.rglob("DET0000301_SA1_ph1.dcm"))
    image = pydicom.dcmread(replaced)
    image.InstanceNumber = 1000
    image.save_as(replaced)
    after = outcome(given, data, out, resume=True)
    assert (after.done, after.skipped, len(after.failed)) == (2, before.done - 1, len(before.failed) - 1)
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    done = {Path(line["target"]).name for line in lines[-after.done - len(after.failed) :] if not line["error"]}
    assert done == {"DET0000201_ph00.nii.gz", "DET0000301_ph01.nii.gz"}


class Watched(Bucket):
    """Writes down what is fetched, and denies what is of one study."""

    def __init__(self, root: Path, denied: str = "nothing") -> None:
        super().__init__(root)
        self.fetched: list[str] = []
        self.begun: list[str] = []
        self._denied = denied

    def fetch(self, key: str, to: Path, version: str | None = None) -> StoredObject:
        self.fetched.append(key.rpartition("/")[2])
        if self._denied in key:
            raise AccessDeniedError(f"cannot read {key}: denied")
        return super().fetch(key, to, version)

    def read_start(self, key: str, count: int) -> bytes:
        self.begun.append(key.rpartition("/")[2])
        return super().read_start(key, count)


def listed(bucket: Bucket) -> Iterator[StoredObject]:
    return (found for found in bucket.list() if found.key.lower().endswith(".dcm"))


def test_only_one_phase_is_fetched_to_tell_volumes_apart(studies: Path) -> None:
    bucket = Watched(studies)
    series = series_among(list(listed(bucket)), bucket)
    wanted = {found.key.rpartition("/")[2] for found in listed(bucket) if "_SA" in found.key and "_ph0" in found.key}
    # Of places whose first phase is damaged the next one.
    assert sorted(bucket.fetched) == sorted(wanted | {"DET0000201_SA2_ph1.dcm", "DET0000301_SA3_ph1.dcm"})
    assert sorted(found.key for one in series for found in one.objects) == sorted(found.key for found in listed(bucket))


def test_studies_that_are_denied_are_volumes_by_phase_all_the_same(studies: Path) -> None:
    bucket = Watched(studies, denied="DET0000301")
    names = {one.name for one in series_among(list(listed(bucket)), bucket)}
    assert {"DET0000301_ph00", "DET0000301_ph01"} == {name for name in names if name and "301_ph" in name}


def test_files_beside_a_study_are_a_series_of_their_folder(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, tmp_path)
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


def test_series_of_one_folder_of_a_bucket_are_told_apart_as_those_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, tmp_path)
    given = tmp_path / "given"
    save_series(given / "mixed", "a", range(12))
    save_series(given / "mixed", "b", range(3))
    save_series(given / "mixed", "report", [0], Rows=None)
    save_series(given / "reports", "report", [0], Rows=None)
    save_series(given / "damaged", "a", range(2))
    save_series(given / "damaged", "b", range(2))
    save_series(given / "alone", "a", range(12))
    (given / "damaged" / "b01.dcm").write_bytes(bytes(20_000))
    here = outcome(given, DataConfig(), tmp_path / "here")
    there = outcome("s3://bkt/given", DataConfig(), tmp_path / "there")
    found, expected = tree(tmp_path / "there"), tree(tmp_path / "here")
    del found["ledger.jsonl"], expected["ledger.jsonl"]
    assert found == expected
    assert len({name for name in found if name.startswith("mixed/")}) == 2
    assert {entry.target for entry in there.failed} == {entry.target for entry in here.failed}
    assert {entry.target.partition("/")[0] for entry in there.failed} == {"damaged"}
    assert (there.done, len(there.failed)) == (here.done, len(here.failed)) == (3, 2)


def test_of_a_folder_with_one_series_a_few_starts_are_read_alone(tmp_path: Path) -> None:
    save_series(tmp_path / "one", "a", range(30))
    bucket = Watched(tmp_path)
    (series,) = series_among(list(listed(bucket)), bucket)
    assert len(series.objects) == 30
    assert len(bucket.begun) == 8
    assert {"a00.dcm", "a29.dcm"} <= set(bucket.begun)
    assert not bucket.fetched


def test_a_header_that_is_longer_than_the_start_is_read_whole(tmp_path: Path) -> None:
    save_series(tmp_path / "two", "a", range(2))
    save_series(tmp_path / "two", "b", range(2), LongCodeValue="x" * 20_000)
    bucket = Watched(tmp_path)
    assert len(series_among(list(listed(bucket)), bucket)) == 2
    assert sorted(bucket.fetched) == ["b00.dcm", "b01.dcm"]


def test_a_series_that_hides_among_many_slices_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, tmp_path)
    save_series(tmp_path / "most", "a", range(30))
    save_series(tmp_path / "most", "a01b", [0])
    (entry,) = outcome("s3://bkt/most", DataConfig(), tmp_path / "out").failed
    assert entry.error == "s3://bkt/most: 2 DICOM series in one folder; give each a folder of its own"


def test_a_series_too_large_is_told_of_by_its_place_in_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, tmp_path)
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
    (entry,) = outcome("s3://bkt/large", DataConfig(), tmp_path / "out").failed
    assert str(entry.error).startswith("s3://bkt/large: 33 slices of (8192, 8192) pixels")
