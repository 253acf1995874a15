"""Settings on the command line: errors name the setting, and `config show` lists all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run

from maag.config import codec
from maag.config.schema import Config
from maag.data.catalog import preset, write_phantom
from maag.storage import read_json, write_json


def test_invalid_settings_are_reported(phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "run")
    assert run(*words, "--set", "optim.lr=-1") == 2
    assert "optim.lr: input should be greater than 0, got -1" in capsys.readouterr().err
    assert run(*words, "--set", "optim.nonsense=1") == 2
    assert "optim.nonsense: no such setting" in capsys.readouterr().err
    assert run(*words, "--set", "optim.lr") == 2
    assert "expected section.key=value" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_config_show_lists_every_setting_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show") == 0
    shown = capsys.readouterr().err
    for setting in codec.leaves(Config()):
        assert setting.path in shown
        assert setting.help


def test_config_shown_as_json_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show", "--preset", "fast", "--set", "gates.levels=[0, 1]", "--json") == 0
    config = codec.from_document(json.loads(capsys.readouterr().out), "stdout")
    assert config.gates.levels == (0, 1)


@pytest.mark.parametrize(("option", "kind"), [("--config", "config.json"), ("--split-file", "split.json")])
def test_invalid_config_or_split_file_is_a_usage_error(
    option: str, kind: str, phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no JSON")
    (tmp_path / "other").write_text('{"nonsense": 1}')
    (tmp_path / "list").write_text("[]")
    for given, sentence in (
        (tmp_path / "nope", f"there is no such file; give a {kind}"),
        (tmp_path, f"it is a folder; give a {kind}"),
        (tmp_path / "text", "it is not JSON"),
        (tmp_path / "other", f"{tmp_path / 'other'}: "),
        (tmp_path / "list", f"{tmp_path / 'list'}: "),
    ):
        assert run("train", "--dataset", "acdc", "--data", phantom_dir, option, given) == 2
        assert sentence in capsys.readouterr().err


def test_a_config_file_that_numbers_classes_otherwise_than_the_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = tmp_path / "data", tmp_path / "config.json"
    write_phantom("nnunet", data, 2, seed=0)
    described = read_json(data / "dataset.json")
    classes = [name for name in described["labels"] if name != "ignore"]
    write_json(file, codec.document(preset("nnunet", "fast", data)))
    words = ("data", "check", "--dataset", "nnunet", "--data", data, "--config", file)
    assert run(*words) == 0
    numbers = {name: number for number, name in enumerate([classes[0], *reversed(classes[1:])])}
    write_json(data / "dataset.json", {**described, "labels": {**numbers, "ignore": len(classes)}})
    capsys.readouterr()
    assert run(*words) == 2
    names = ", ".join(numbers)
    assert f"{file} labels {classes[1]} as 1, but it is 3 in {data} ({names}); give" in capsys.readouterr().err
    assert run(*words, "--set", f"data.classes={json.dumps(list(numbers))}") == 0
