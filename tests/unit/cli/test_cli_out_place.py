"""No command writes its output into the data that it reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from command_line import run

from maag.checkpoint import save_segmentor
from maag.cli.evaluate_models import default_out
from maag.cli.out_place import require_outside
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.splits import Split
from maag.errors import ConfigError
from maag.models.build import build_segmentor
from maag.storage import write_json


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, scribbles and shapes below the working directory, with a link to the data."""
    for name in ("data/acdc/patient001", "drawn", "shapes"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data" / "acdc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("data/acdc", "data/acdc is the data set's folder, data/acdc"),
        ("data/acdc/", "data/acdc is the data set's folder"),
        ("data/acdc/patient001", "data/acdc/patient001 is inside the data set's folder"),
        ("data/acdc/not/there", "is inside the data set's folder"),
        ("runs/../data/acdc/run", "is inside the data set's folder"),
        ("link", "link is the data set's folder"),
        ("link/run", "is inside the data set's folder"),
        ("drawn/run", "is inside the folder of --scribbles, drawn"),
        ("shapes", "is the folder of --shapes, shapes"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_output_inside_an_input_folder_is_refused(workspace: Path, out: str, message: str, absolute: bool) -> None:
    given = workspace / out if absolute else Path(out)
    with pytest.raises(ConfigError) as caught:
        require_outside(given, Path("data/acdc"), ("own", "simulated:curve", "drawn"), Path("shapes"))
    assert message in str(caught.value)
    assert str(caught.value).endswith("where its files would be read as data; choose an --out outside of it")


@pytest.mark.parametrize("out", [".", "data", "data/acdc-2", "data/run", "data/acdc/../run", "runs/x", "own", "/"])
def test_output_beside_or_above_input_folders_is_allowed(workspace: Path, out: str) -> None:
    require_outside(Path(out), Path("data/acdc"), ("own", "simulated:curve", "drawn"), Path("shapes"))
    require_outside(Path(out), Path("link"))


def test_output_is_refused_if_the_working_directory_is_the_data(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace / "data" / "acdc")
    with pytest.raises(ConfigError, match=r"^x is inside the data set's folder, \."):
        require_outside(Path("x"), Path("."))
    require_outside(None, Path("."))


def write_run(folder: Path) -> Path:
    config = override(Config(), {"data.size_px": [32, 32], "segmentor.width": 2})
    split = Split(scheme="own", scribbled=("patient001",), val=("patient002",))
    path = folder / "checkpoints" / "best.safetensors"
    path.parent.mkdir(parents=True)
    save_segmentor(path, config, build_segmentor(config).state_dict(), {"kind": "best", "split_digest": split.digest})
    write_json(folder / "split.json", split.to_dict())
    return folder


@pytest.mark.parametrize("command", ["train", "tune", "evaluate", "export", "relabel"])
def test_every_command_refuses_output_inside_data_before_writing(
    command: str, phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    before = sorted(os.walk(phantom_dir))
    data = ("--data", phantom_dir, "--out", phantom_dir / "new")
    words: dict[str, tuple[object, ...]] = {
        "train": ("train", "--dataset", "acdc", *data, "--preset", "fast", "--epochs", 1),
        "tune": ("tune", "--dataset", "acdc", *data, "--trials", 1, "--epochs", 1),
        "evaluate": ("evaluate", "--dataset", "acdc", *data, "--predictions", tmp_path),
        "export": ("export", tmp_path / "run", *data),
        "relabel": ("data", "relabel", tmp_path / "run", "--dataset", "acdc", *data),
    }
    write_run(tmp_path / "run")
    assert run(*words[command]) == 2
    assert f"{phantom_dir / 'new'} is inside the data set's folder, {phantom_dir}" in capsys.readouterr().err
    assert sorted(os.walk(phantom_dir)) == before


@pytest.mark.slow
def test_default_output_is_allowed_when_working_in_the_data_folder(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    here = shutil.copytree(phantom_dir, tmp_path / "here")
    monkeypatch.chdir(here)
    assert run("train", "--dataset", "acdc", "--data", ".", "--preset", "fast", "--epochs", 1) == 0
    (trained,) = (here / "runs").iterdir()
    assert run("export", "--data", ".") == 0
    assert (trained / "export" / "model.onnx").is_file()
    assert run("data", "check", "--dataset", "acdc", "--data", ".") == 0


def test_evaluation_of_labels_is_written_beside_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels/deep").mkdir(parents=True)
    Path("link").symlink_to("labels/deep")
    assert default_out(Path("labels"), "all", is_model=False) == Path("labels-evaluation-all")
    assert default_out(Path("link"), "all", is_model=False) == tmp_path / "labels" / "deep-evaluation-all"
    monkeypatch.chdir("labels")
    assert default_out(Path("."), "all", is_model=False) == tmp_path / "labels-evaluation-all"
