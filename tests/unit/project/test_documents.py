"""The documents are correct: links resolve, and commands, options and settings exist."""

from __future__ import annotations

import itertools
import re
import shlex
from dataclasses import fields
from pathlib import Path

import click
import pytest

from maag.cli.main import commands
from maag.config.codec import override
from maag.config.schema import Config

ROOT = Path(__file__).parents[3]
GUIDES = sorted((ROOT / "docs").glob("*.md"))
BENCHMARKS = ROOT / "benchmarks"
EARLIER = BENCHMARKS / "EARLIER.md"
"""Results of earlier versions, which had other options and settings."""
CURRENT = [
    ROOT / "README.md",
    *GUIDES,
    ROOT / "infra" / "README.md",
    BENCHMARKS / "RESULTS.md",
    BENCHMARKS / "SCALING.md",
]
SECTIONS = "|".join(section.name for section in fields(Config))
SETTING = re.compile(rf"`({SECTIONS})\.([a-z_]+)(?:=[^`]*)?`")
FILES = {"yaml", "json", "jsonl", "py", "csv"}


@pytest.fixture(params=CURRENT, ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def command_lines(text: str) -> list[list[str]]:
    """Words of each `maag ...` in blocks of code, after `maag`."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    lines = "\n".join([*blocks, *indented]).replace("\\\n", " ").splitlines()
    calls = [call for line in lines for call in re.split(r"&&|;|\|", line.split(" # ")[0])]
    return [shlex.split(call)[1:] for call in calls if re.match(r"\s*maag ", call)]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words call, and its own arguments."""
    command: click.Command = commands
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("document", [*CURRENT, EARLIER], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_commands_in_documents_exist_with_their_options(document: Path) -> None:
    for words in command_lines(document.read_text()):
        command, own = command_of(words)
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert {word.split("=")[0] for word in own if word.startswith("--")} <= known, words


def test_settings_in_commands_can_be_set(document: Path) -> None:
    for words in command_lines(document.read_text()):
        changes = [value.partition("=") for option, value in itertools.pairwise(words) if option == "--set"]
        override(Config(), {name: text for name, _, text in changes})


def test_settings_named_in_documents_exist(document: Path) -> None:
    for section, name in SETTING.findall(document.read_text()):
        known = {setting.name for setting in fields(getattr(Config(), section))}
        assert name in known | FILES, f"{section}.{name}"


def test_every_guide_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for guide in GUIDES:
        assert f"(docs/{guide.name})" in readme, guide
