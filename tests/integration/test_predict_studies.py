"""DICOM studies in a bucket, with several volumes in a folder, are predicted like those in local folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from command_line import Maag
from s3_server import BUCKET, S3Server, client_of
from threshold_runner import file_contents

from maag.data.catalog import write_phantom
from maag.data.phantoms.dicom_files import save_slice

pytestmark = pytest.mark.integration

NUM_PHASES = 4


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lvsc")
    write_phantom("lvsc", out, 4, seed=1)
    return next(out.rglob("DicomFiles"))


@pytest.fixture
def done(maag: Maag) -> Callable[..., tuple[int, int]]:
    """Predicts; how many volumes were done, and how many skipped."""

    def predict(place: object, out: object, *words: object) -> tuple[int, int]:
        result = maag("predict", place, "--out", out, *words, "--json")
        return result["done"], result["skipped"]

    return predict


def stored(environment: dict[str, str], prefix: str) -> dict[str, bytes]:
    client = client_of(environment)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    return {
        key.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        for key in keys
        if "ledger" not in key
    }


def test_studies_in_a_bucket_are_predicted_like_local_ones(
    server: tuple[S3Server, dict[str, str]],
    done: Callable[..., tuple[int, int]],
    artifact: Path,
    studies: Path,
    tmp_path: Path,
) -> None:
    model = ("--model", artifact)
    s3, environment = server
    for name, content in file_contents(studies).items():
        s3.put_object(f"in/{name}", content)
    files = [name for name in file_contents(studies) if name.lower().endswith(".dcm")]
    places = len([name for name in files if "_SA" in name and "_ph0." in name])
    options = (*model, "--probabilities", "--measures")
    number = done(studies, tmp_path / "out", *options)[0]
    bucket, out = f"s3://{BUCKET}/in", f"s3://{BUCKET}/out"
    assert done(bucket, out, *options) == (number, 0)
    expected = {name: content for name, content in file_contents(tmp_path / "out").items() if name != "ledger.jsonl"}
    assert stored(environment, "out/") == expected
    assert {f"DET0000401/DET0000401_ph0{phase}.nii.gz" for phase in range(NUM_PHASES)} <= expected.keys()
    # Each file is read once, and those of one phase once more beforehand to group the files.
    assert s3.count("GET", "in/*") == len(files) + places
    assert done(bucket, out, *options, "--resume") == (0, number)
    assert s3.count("GET", "in/*") == len(files) + 2 * places

    one, segmentations = "DET0000301", (*model, "--dicom-seg")
    done(studies / one, tmp_path / "segmentations", *segmentations)
    done(f"{bucket}/{one}", f"s3://{BUCKET}/segmentations", *segmentations)
    for name, content in stored(environment, "segmentations/").items():
        (tmp_path / "found.dcm").write_bytes(content)
        found, right = map(pydicom.dcmread, (tmp_path / "found.dcm", tmp_path / "segmentations" / name))
        assert found.PixelData == right.PixelData
        assert found.ReferencedSeriesSequence == right.ReferencedSeriesSequence
        (tmp_path / "segmentations" / name).unlink()
    assert file_contents(tmp_path / "segmentations").keys() == {"ledger.jsonl"}


def test_series_sharing_a_bucket_folder_are_predicted_like_local_ones(
    server: tuple[S3Server, dict[str, str]], done: Callable[..., tuple[int, int]], artifact: Path, tmp_path: Path
) -> None:
    for series in ("t1", "t2"):
        for number in range(6):
            save_slice(
                tmp_path / "in" / "study" / f"{series}_{number}.dcm",
                np.full((96, 96), number, np.uint16),
                spacing_mm=1.5,
                thickness_mm=5,
                position=(0, 0, 5.0 * number),
                series=series,
                number=number,
            )
    s3, environment = server
    for name, content in file_contents(tmp_path / "in").items():
        s3.put_object(f"in/{name}", content)
    assert done(tmp_path / "in", tmp_path / "out", "--model", artifact) == (2, 0)
    bucket, out = f"s3://{BUCKET}/in", f"s3://{BUCKET}/out"
    assert done(bucket, out, "--model", artifact) == (2, 0)
    expected = {name: content for name, content in file_contents(tmp_path / "out").items() if name != "ledger.jsonl"}
    assert stored(environment, "out/") == expected
    assert done(bucket, out, "--model", artifact, "--resume") == (0, 2)
