"""Labels are never written beside the images that are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from folder_bucket import serve_as_bucket

from deploy.predicting.batch import plan
from maag.config.data import DataConfig
from maag.errors import ConfigError

TWO = DataConfig(dataset="nnunet", classes=("background", "bright"), channels=2)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, each with the user's own mask where its labels would go."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("x_0000.nii.gz", "x_0001.nii.gz", "x.nii.gz", "a.jpg", "a.png"):
        (scans / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("scans/x_0000.nii.gz\nscans/x_0001.nii.gz\n")
    serve_as_bucket(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "inputs",
    [
        ["scans/x_000?.nii.gz"],
        ["scans/x_0000.nii.gz", "scans/x_0001.nii.gz"],
        ["list.txt"],
        ["scans/a.jpg"],
        ["scans/*.jpg"],
        ["s3://bkt/scans/x_*"],
        ["s3://bkt/scans/a.jpg"],
    ],
)
def test_an_output_beside_the_images_is_refused(workspace: Path, inputs: list[str]) -> None:
    base = "s3://bkt/" if inputs[0].startswith("s3") else ""
    with pytest.raises(ConfigError, match=r"would be written beside .*scans/.*choose an output folder without images"):
        plan(inputs, f"{base}scans", data=TWO)
    (source,) = plan(inputs, f"{base}labels", data=TWO)
    assert source.target in ("x.nii.gz", "a.png")
    plan(inputs, f"{base}scans/labels", data=TWO)


@pytest.mark.parametrize("out", ["scans", "links/one", "links/two", "other"])
def test_an_output_beside_image_links_or_their_targets_is_refused(workspace: Path, out: str) -> None:
    (workspace / "other").mkdir()
    (workspace / "other" / "x_0001.nii.gz").write_bytes(b"")
    (workspace / "links" / "one").mkdir(parents=True)
    (workspace / "links" / "two").symlink_to(workspace / "links" / "one")
    (workspace / "links" / "one" / "x_0000.nii.gz").symlink_to(workspace / "scans" / "x_0000.nii.gz")
    (workspace / "links" / "one" / "x_0001.nii.gz").symlink_to(workspace / "other" / "x_0001.nii.gz")
    with pytest.raises(ConfigError, match="would be written beside"):
        plan(["links/two/x_*"], out, data=TWO)
