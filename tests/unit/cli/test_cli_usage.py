"""Help and usage errors: exit codes, one sentence, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import run

from maag.cli.main import commands

HEAVY = ("torch", "ray", "monai", "numpy", "pydantic", "rich", "matplotlib", "onnx")


def all_commands() -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = []
    for name, command in commands.commands.items():
        names += [(name, sub) for sub in getattr(command, "commands", {})] or [(name,)]
    return names


@pytest.mark.parametrize("words", [(), *all_commands()], ids=" ".join)
def test_help_of_every_command_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom maag.cli import main\n"
        f"try:\n    main({[*words, '--help']!r})\nexcept SystemExit as end:\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_empty_path_is_refused(phantom_dir: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--data", phantom_dir, "--out", ""), ("--data", "")):
        assert run("train", "--dataset", "acdc", *words, *tiny_options) == 2
        assert "the path is empty; use '.'" in capsys.readouterr().err
    for words in (("", "--out", "labels"), ("scans", "--out", "")):
        assert run("predict", *words, "--model", "model", "--workers", 2) == 2
        assert "the path is empty; use '.'" in capsys.readouterr().err


def test_unknown_commands_and_options_are_usage_errors() -> None:
    assert run("segment") == 2
    assert run("train", "--dataset", "nonsense") == 2
    assert run("train", "--debug-me") == 2


def test_debug_shows_the_traceback_and_keeps_the_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("train", "--dataset", "acdc", "--data", tmp_path / "none", "--debug") == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "Error: " in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--shapes-dataset", "chaos"), "is the layout of --shapes, which is not given"),
        (("--wait", 3), "--wait 3: it waits for the workers of a cluster only"),
    ],
)
def test_options_without_effect_are_refused(
    words: tuple[object, ...], sentence: str, phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "run", *words) == 2
    assert sentence in capsys.readouterr().err


def test_wait_without_workers_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "out", "--wait", 3) == 2
    assert "--wait 3: it waits for the workers of a cluster only" in capsys.readouterr().err


def test_refinement_of_given_predictions_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for refinement in ("--flips", "--rotations", "--largest-component"):
        assert run("evaluate", "--dataset", "acdc", "--predictions", tmp_path, refinement) == 2
    assert "leave them out with --predictions" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "default"), [("train", "paper"), ("tune", "fast, with a GPU paper")])
def test_help_shows_the_default_preset(name: str, default: str) -> None:
    (preset,) = (option for option in commands.commands[name].params if option.name == "preset")
    assert isinstance(preset, click.Option)
    assert (preset.help or "").endswith(f"[default: {default}]")
