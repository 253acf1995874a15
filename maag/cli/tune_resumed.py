"""Options that a search which is resumed does not follow, for it keeps what it was begun with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maag.cli.tune_plan import OWN
from maag.cli.tune_stored import read_stored
from maag.errors import ConfigError

if TYPE_CHECKING:
    from maag.config.schema import Config

_STORED_AS = {
    "trials": "trials",
    "concurrency": "at_once",
    "epochs": None,
    "algorithm": "algorithm",
    "workers": "workers",
    "seed": "seed",
}
"""Parameters of the command that a search keeps from its begin to its end, by name; epochs are in its settings."""


def refuse_what_is_fixed() -> None:
    """Raise ConfigError for an option that would change a search on its way."""
    for option, _, _ in _said():
        raise ConfigError(f"--resume goes on with the search's own {option}: leave it out, or start another")


def ineffective_settings(
    path: Path, asked: Config, said: Collection[str], split_file: Path | None, *, whole: bool
) -> list[str]:
    """A sentence for everything on the command line that is not what the search in `path` was begun with.

    Args:
        path: the search's folder.
        asked: the settings that the command line makes.
        said: those of them that it names.
        split_file: the split that it names.
        whole: it names a preset or a file, so all settings were meant.
    """
    from maag.storage import read_json

    before = read_stored(path)
    sentences = []
    for option, name, value in _said():
        if name is None:
            continue
        # No more at once than there are trials.
        wanted = min(value, before["trials"]) if name == "at_once" else value
        if wanted != before[name]:
            sentences.append(f"{option} {value} has no effect: the search goes on with its own {before[name]}.")
    sentences += _settings_without_effect(before, asked, said, whole)
    if split_file and read_json(split_file) != read_json(path / "split.json"):
        sentences.append(f"--split-file {split_file} has no effect: the search goes on with {path / 'split.json'}.")
    return sentences


def _settings_without_effect(before: Mapping[str, Any], asked: Config, said: Collection[str], whole: bool) -> list[str]:
    from maag.config import codec

    own = {setting.path: setting.value for setting in codec.leaves(codec.from_dict(before["base"]))}
    others = [
        setting
        for setting in codec.leaves(asked)
        if setting.value != own[setting.path]
        and setting.path not in OWN
        # How many epochs there are unless it is said hangs on the machine.
        and (setting.path in said or (whole and setting.path != "optim.epochs"))
    ]
    if not others:
        return []
    now = ", ".join(f"{setting.path}={setting.value}" for setting in others)
    kept = ", ".join(f"{setting.path}={own[setting.path]}" for setting in others)
    return [f"{now} has no effect: the search goes on with its own {kept}."]


def _said() -> list[tuple[str, str | None, Any]]:
    """Option, name in search.json and value of each of those that stand on the command line."""
    context = click.get_current_context()
    options = {each.name: each.opts[0] for each in context.command.params}
    return [
        (options[name], stored, context.params[name])
        for name, stored in _STORED_AS.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
