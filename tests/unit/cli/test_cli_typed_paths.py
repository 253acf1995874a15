"""Errors show relative paths as the user typed them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from threshold_runner import DATA, ThresholdRunner, write_volume

from deploy.exporting.artifact_folder import building_artifact
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from maag.cli.main import main
from maag.errors import ConfigError, StorageError


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words])
    assert ended.value.code
    return capsys.readouterr().err


@pytest.mark.parametrize("place", ["data", "data/acdc/../acdc", "here"])
@pytest.mark.parametrize("command", [("data", "check"), ("train", "--preset", "fast")])
def test_bad_scribble_is_reported_by_its_typed_path(
    phantom_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    command: tuple[str, ...],
) -> None:
    shutil.copytree(phantom_dir, "data/acdc", ignore=shutil.ignore_patterns("patient00[3-6]"))
    Path("data/acdc_scribbles").mkdir()
    for path in Path("data/acdc").rglob("*_scribble.nii.gz"):
        path.rename(Path("data/acdc_scribbles", path.name))
    bad = sorted(Path("data/acdc_scribbles").iterdir())[0]
    bad.write_text("no image")
    if place == "here":
        monkeypatch.chdir("data/acdc")
    given, shown = {"data": ("data/acdc", bad), "here": (".", Path("..", *bad.parts[1:]))}.get(place, (place, bad))
    error = error_of(capsys, *command, "--dataset", "acdc", "--data", given)
    assert f" {shown}: not a readable NIfTI file" in error
    assert str(tmp_path) not in error


@pytest.mark.parametrize("existing", ["a.nii.gz", "review.csv"])
def test_existing_labels_or_review_table_are_reported_by_their_typed_path(tmp_path: Path, existing: str) -> None:
    write_volume(Path("scans/a.nii.gz"))
    Path("out").mkdir()
    Path("out", existing).write_text("of mine")
    try:
        outcome = predict(["scans"], Threads(ThresholdRunner()), DATA, "out", "m", work=Work(review=True))
        error = str(outcome.failed[0].error)
    except ConfigError as problem:
        error = str(problem)
    assert f"out/{existing} already exists" in error
    assert str(tmp_path) not in error


def test_occupied_export_folder_is_reported_by_its_typed_path() -> None:
    Path("taken").mkdir()
    Path("taken/mine").write_text("of mine")
    with pytest.raises(StorageError, match=r"^cannot write taken: it holds other files, such as mine"), \
            building_artifact(Path("taken")):  # fmt: skip
        pass
