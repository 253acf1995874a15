"""A bucket of volumes through an exported model: faults, a kill half-way, and a resume."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel
import numpy as np
import psutil
import pytest
from command_line import Maag
from maag_subprocess import Command, wait_until
from PIL import Image
from random_volumes import SHAPE, assert_labels_match_model, volume_bytes, volume_name
from s3_server import BUCKET, Fault, S3Server, client_of

from maag.data.phantoms.dicom_files import save_slice

pytestmark = pytest.mark.integration

NUM_VOLUMES = 200


def fill(client: Any, number: int = NUM_VOLUMES) -> dict[str, bytes]:
    """Volumes under in/, by their name there."""
    volumes = {volume_name(place): volume_bytes(place) for place in range(number)}
    for name, content in volumes.items():
        client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=content)
    return volumes


def listed(client: Any, prefix: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())]


def has_unfinished_requests(environment: dict[str, str]) -> bool:
    """Whether the server, in this process, is still handling requests of a client that was killed."""
    port = urlsplit(environment["AWS_ENDPOINT_URL"]).port
    connections = psutil.Process().net_connections("tcp")
    return any(each.laddr.port == port and each.status == psutil.CONN_CLOSE_WAIT for each in connections)


def ledger_of(client: Any) -> list[dict[str, Any]]:
    content = client.get_object(Bucket=BUCKET, Key="out/ledger.jsonl")["Body"].read()
    return [json.loads(line) for line in content.decode().splitlines()]


def test_killed_prediction_of_a_faulty_bucket_resumes_without_repeats(
    server: tuple[S3Server, dict[str, str]], maag: Maag, artifact: Path, tmp_path: Path
) -> None:
    s3, environment = server
    client = client_of(environment)
    volumes = fill(client)
    bad = {
        "bad/truncated.nii.gz": volume_bytes(1)[:300],
        "bad/html.nii.gz": b"<html>not found</html>",
        "bad/nan.nii.gz": nan_volume(),
        "bad/denied.nii.gz": volume_bytes(2),
        "bad/vanished.nii.gz": volume_bytes(3),
        "bad\\backslash.nii.gz": volume_bytes(4),
    }
    for name, content in bad.items():
        client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=content)
    client.put_object(Bucket=BUCKET, Key=f"in/{volume_name(7).replace('.nii', '_gt.nii')}", Body=volume_bytes(7))
    for fault in (
        Fault("503", "in/site*", times=20),
        Fault("503", "out/site*", times=5, method="PUT"),
        Fault("drop", "in/site1/*", times=5, method="GET"),
        Fault("slow", "in/site2/*", times=5, method="GET"),
        Fault("close", "in/site0/*", times=3, method="GET"),
        Fault("change", f"in/{volume_name(150)}", method="GET"),
        Fault("vanish", "in/bad/vanished*", method="GET"),
        Fault("403", "in/bad/denied*", times=10**6),
    ):
        s3.faults.add(fault)
    words = ("predict", f"s3://{BUCKET}/in", "--model", artifact, "--out", f"s3://{BUCKET}/out", "--json")

    first = Command(*words, environment=environment)
    wait_until(lambda: s3.count("PUT", "out/site*") >= NUM_VOLUMES // 2)
    first.send_signal(signal.SIGKILL)
    assert first.wait_for_exit()[0] == -signal.SIGKILL
    wait_until(lambda: not has_unfinished_requests(environment))
    stored = [name for name in listed(client, "out/") if name.startswith("site")]
    assert NUM_VOLUMES // 3 < len(stored) < NUM_VOLUMES
    before = len(s3.uploads)

    result = maag(*words, "--resume", code=3)
    # Nothing is repeated: what was stored before the kill is not stored again.
    again = {path.removeprefix(f"/{BUCKET}/out/") for path in s3.uploads[before:]}
    assert not again & set(stored)
    assert result["skipped"] == len(stored)
    # Nothing is lost or half-written: every good volume has its labels, the others a reason.
    good = set(volumes) - {volume_name(150)}
    assert {name for name in listed(client, "out/") if name.startswith("site")} == good
    assert result["done"] + result["skipped"] == len(good)
    reasons = {item["source"].removeprefix(f"s3://{BUCKET}/in/"): item["error"] for item in result["failures"]}
    assert set(reasons) == {*(set(bad) - {"bad/vanished.nii.gz"}), volume_name(150)}
    assert "403 AccessDenied" in reasons["bad/denied.nii.gz"]
    assert "backslash" in reasons["bad\\backslash.nii.gz"]
    for name in ("bad/truncated.nii.gz", "bad/html.nii.gz", "bad/nan.nii.gz", volume_name(150)):
        assert f"s3://{BUCKET}/in/{name}" in reasons[name]  # and no path of this machine
        assert "maag-predict" not in reasons[name]
    lines = ledger_of(client)
    assert {line["target"] for line in lines if line["error"] is None} == good
    for name in sorted(good)[::40]:
        content = client.get_object(Bucket=BUCKET, Key=f"out/{name}")["Body"].read()
        assert_labels_match_model(content, volumes[name], artifact, tmp_path)
    # A further resume repeats only the failures.
    before = len(s3.uploads)
    result = maag(*words, "--resume", code=3)
    assert (result["done"], result["skipped"]) == (0, len(good))
    assert not any("/out/site" in path for path in s3.uploads[before:])


def nan_volume() -> bytes:
    voxels = np.full(SHAPE, np.nan, np.float32)
    return gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())


def test_resume_repeats_changed_volumes_and_all_for_another_refinement(
    server: tuple[S3Server, dict[str, str]], maag: Maag, artifact: Path, tmp_path: Path
) -> None:
    _, environment = server
    client = client_of(environment)
    volumes = fill(client, 6)
    words = ("--model", artifact, "--out", f"s3://{BUCKET}/out", "--resume", "--json")
    pattern = f"s3://{BUCKET}/in/site*/patient00[0-4].nii.gz"
    (tmp_path / "list.txt").write_text(f"# the rest\ns3://{BUCKET}/in/{volume_name(5)}\n")
    assert maag("predict", pattern, *words)["done"] == 5
    client.put_object(Bucket=BUCKET, Key=f"in/{volume_name(2)}", Body=volume_bytes(77))
    client.delete_object(Bucket=BUCKET, Key=f"out/{volume_name(3)}")
    client.put_object(Bucket=BUCKET, Key=f"out/{volume_name(4)}", Body=b"something else")
    result = maag("predict", pattern, tmp_path / "list.txt", *words)
    assert (result["done"], result["skipped"], result["kept"]) == (3, 3, 1)
    assert volume_name(5).rpartition("/")[2] in listed(client, "out/")
    content = {
        place: client.get_object(Bucket=BUCKET, Key=f"out/{volume_name(place)}")["Body"].read() for place in (3, 4)
    }
    assert_labels_match_model(content[3], volumes[volume_name(3)], artifact, tmp_path)
    assert content[4] == b"something else"
    assert maag("predict", pattern, *words, "--largest-component")["done"] == 5


def test_object_not_written_by_maag_is_not_replaced(
    server: tuple[S3Server, dict[str, str]], maag: Maag, artifact: Path
) -> None:
    _, environment = server
    client = client_of(environment)
    volumes = fill(client, 2)
    client.put_object(Bucket=BUCKET, Key=f"out/{volume_name(0)}", Body=b"something else")
    words = ("predict", f"s3://{BUCKET}/in", "--model", artifact, "--out", f"s3://{BUCKET}/out", "--json")
    for more in ((), ("--resume",), ()):
        (failure,) = maag(*words, *more, code=3)["failures"]
        assert f"s3://{BUCKET}/out/{volume_name(0)} already exists and was not written by maag" in failure["error"]
    assert client.get_object(Bucket=BUCKET, Key=f"out/{volume_name(0)}")["Body"].read() == b"something else"
    client.delete_object(Bucket=BUCKET, Key=f"out/{volume_name(0)}")
    result = maag(*words, "--resume")
    assert (result["done"], result["skipped"]) == (1, len(volumes) - 1)


def test_dicom_series_and_pictures_in_a_bucket_are_predicted(
    server: tuple[S3Server, dict[str, str]], maag: Maag, artifact: Path, tmp_path: Path
) -> None:
    _, environment = server
    client = client_of(environment)
    for number in range(3):
        plane = np.random.default_rng(number).integers(0, 255, (20, 24)).astype(np.uint16)
        place = tmp_path / f"{number}.dcm"
        save_slice(
            place, plane, spacing_mm=1.5, thickness_mm=6.0, position=(0, 0, 6.0 * number), series="s", number=number
        )
        client.upload_file(str(place), BUCKET, f"in/p1/series/{number}.dcm")
    Image.fromarray(plane.astype(np.uint8)).save(tmp_path / "a.jpg")
    client.upload_file(str(tmp_path / "a.jpg"), BUCKET, "in/p2/a.jpg")
    client.put_object(Bucket=BUCKET, Key="in/p2/notes.pdf", Body=b"no image")
    words = ("--model", artifact, "--out", f"s3://{BUCKET}/out", "--dicom-seg", "--resume", "--json")
    assert maag("predict", f"s3://{BUCKET}/in", *words)["done"] == 2
    names = {name for name in listed(client, "out/") if not name.startswith("ledger")}
    assert names == {"p1/series.dcm", "p2/a.png", "p2/a.json"}
    client.upload_file(str(tmp_path / "0.dcm"), BUCKET, "in/p1/series/2.dcm")  # two at one place now
    (failure,) = maag("predict", f"s3://{BUCKET}/in/**/*.dcm", *words, code=3)["failures"]
    assert f"s3://{BUCKET}/in/p1/series/2.dcm: lies at the position of" in failure["error"]


@pytest.mark.parametrize(("method", "code"), [("GET", 3), ("LIST", 1), ("PUT", 1)])
def test_denied_access_is_reported_without_retries(
    server: tuple[S3Server, dict[str, str]], maag: Maag, artifact: Path, method: str, code: int
) -> None:
    s3, environment = server
    fill(client_of(environment), 3)
    before = s3.count("PUT")
    s3.faults.add(Fault("403", "in/*" if method == "GET" else "*", method=method, times=10**6))
    words = ("predict", f"s3://{BUCKET}/in", "--model", artifact, "--out", f"s3://{BUCKET}/out")
    text = maag(*words, code=code)
    assert "AccessDenied" in text
    assert "Traceback" not in text
    assert s3.count("GET", "in/*.nii.gz") <= 3  # no second try
    if method == "PUT":
        assert s3.count("PUT") - before <= 3
