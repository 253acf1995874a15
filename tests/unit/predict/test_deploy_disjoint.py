"""Labels replace nothing that lies where images are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from folder_bucket import serve

from deploy.predicting.batch import plan
from maag.config.data import DataConfig
from maag.errors import ConfigError

TWO = DataConfig(dataset="nnunet", classes=("background", "bright"), channels=2)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, each with a mask of the user's own where its labels would go."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("x_0000.nii.gz", "x_0001.nii.gz", "x.nii.gz", "a.jpg", "a.png"):
        (scans / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("scans/x_0000.nii.gz\nscans/x_0001.nii.gz\n")
    serve(monkeypatch, tmp_path)
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
def test_a_mask_beside_images_is_not_replaced(work: Path, inputs: list[str]) -> None:
    base = "s3://bkt/" if inputs[0].startswith("s3") else ""
    with pytest.raises(ConfigError, match=r"would be written beside .*scans/.*choose an output folder without images"):
        plan(inputs, f"{base}scans", data=TWO)
    (source,) = plan(inputs, f"{base}labels", data=TWO)
    assert source.target in ("x.nii.gz", "a.png")
    plan(inputs, f"{base}scans/labels", data=TWO)


@pytest.mark.parametrize("out", ["scans", "links/one", "links/two", "other"])
def test_nor_is_one_beside_a_link_to_an_image_or_what_it_leads_to(work: Path, out: str) -> None:
    (work / "other").mkdir()
    (work / "other" / "x_0001.nii.gz").write_bytes(b"")
    (work / "links" / "one").mkdir(parents=True)
    (work / "links" / "two").symlink_to(work / "links" / "one")
    (work / "links" / "one" / "x_0000.nii.gz").symlink_to(work / "scans" / "x_0000.nii.gz")
    (work / "links" / "one" / "x_0001.nii.gz").symlink_to(work / "other" / "x_0001.nii.gz")
    with pytest.raises(ConfigError, match="would be written beside"):
        plan(["links/two/x_*"], out, data=TWO)
