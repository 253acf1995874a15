"""Rules of the project: import names, file sizes, module names, pinned dependencies, documented features."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("maag", "tune", "deploy")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BUILDERS = sorted((ROOT / "tests" / "builders").glob("*.py"))
HARD_LIMIT_LINES = 400
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_import_names_belong_to_maag_alone(package: str) -> None:
    assert set(importlib.metadata.packages_distributions()[package]) == {"maag"}


def test_tests_contain_no_package_that_shadows_a_source_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not [path for path in (ROOT / "tests").rglob("*") if path.is_dir() and path.name in PACKAGES]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_within_the_line_limit(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= HARD_LIMIT_LINES


@pytest.mark.parametrize("path", [*SOURCES, *BUILDERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_have_specific_names_and_docstrings(path: Path) -> None:
    assert path.stem not in {"utils", "helpers", "common", "base", "manager", "misc", "types", "logging", "io"}
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} does not say what it is for"


def test_no_module_calls_print() -> None:
    printing = [
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cluster = [line for line in importlib.metadata.requires("ray") or [] if 'extra == "default"' in line]
    image = (ROOT / "infra" / "docker" / "predict.txt").read_text().splitlines()
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *cluster, *image]
    pinned = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {_name(line) for line in wanted if not line.startswith("#")} <= pinned


def _name(requirement: str) -> str:
    return re.split(r"[\[><=!; ]", requirement)[0].lower().replace("_", "-")


def test_training_image_installs_the_pinned_versions() -> None:
    image = (ROOT / "infra" / "docker" / "train.Dockerfile").read_text()
    assert "constraints.txt" in image
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    tag = re.search(r"^FROM python:(\d+\.\d+)-slim", image, re.MULTILINE)
    assert tag is not None
    assert tag[1] == wanted


def test_every_command_is_in_the_readme() -> None:
    from maag.cli.main import commands

    for name, command in commands.commands.items():
        subcommands = getattr(command, "commands", None)
        for full in [f"maag {name} {sub}" for sub in subcommands] if subcommands else [f"maag {name}"]:
            assert f"`{full}" in README, full


def test_every_section_of_settings_is_in_the_readme() -> None:
    import dataclasses

    from maag.config.schema import Config

    for section in dataclasses.fields(Config):
        assert f"`{section.name}`" in README, section.name


def test_every_file_of_a_run_is_in_the_readme() -> None:
    from maag.train.folder import RunFolder

    run = RunFolder(Path("run"))
    for path in (run.config, run.split, run.metrics, run.result, run.last, run.best, run.final, run.tensorboard):
        assert f"`{path.relative_to('run')}" in README, path


def test_readme_names_the_command_that_ci_runs() -> None:
    command = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert f"`{command}`" in README
