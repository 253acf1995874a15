"""Options that have no effect on a resumed search, which keeps those it was started with."""

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
"""Name in search.json of each command parameter that a search keeps; epochs are among its settings."""


def refuse_what_is_fixed() -> None:
    """Raise ConfigError for an option that would change a resumed search."""
    for option, _, _ in _given_options():
        raise ConfigError(f"--resume uses the search's own {option}: leave it out, or start another search")


def ignored_options(
    path: Path, requested: Config, given: Collection[str], split_file: Path | None, *, whole: bool
) -> list[str]:
    """A sentence for each command line option that differs from what the search in `path` was started with.

    Args:
        path: the search's folder.
        requested: the configuration that results from the command line.
        given: names of settings that it sets.
        split_file: the split that it names.
        whole: it names a preset or a file, so all settings count as given.
    """
    from maag.storage import read_json

    before = read_stored(path)
    sentences = []
    for option, name, value in _given_options():
        if name is None:
            continue
        # Concurrency is stored capped at the number of trials.
        wanted = min(value, before["trials"]) if name == "at_once" else value
        if wanted != before[name]:
            sentences.append(f"{option} {value} has no effect: the search keeps its own {before[name]}.")
    sentences += _settings_without_effect(before, requested, given, whole)
    if split_file and read_json(split_file) != read_json(path / "split.json"):
        sentences.append(f"--split-file {split_file} has no effect: the search keeps {path / 'split.json'}.")
    return sentences


def _settings_without_effect(
    before: Mapping[str, Any], requested: Config, given: Collection[str], whole: bool
) -> list[str]:
    from maag.config import codec

    own = {setting.path: setting.value for setting in codec.leaves(codec.from_dict(before["base"]))}
    others = [
        setting
        for setting in codec.leaves(requested)
        if setting.value != own[setting.path]
        and setting.path not in OWN
        # The default number of epochs depends on the machine.
        and (setting.path in given or (whole and setting.path != "optim.epochs"))
    ]
    if not others:
        return []
    now = ", ".join(f"{setting.path}={setting.value}" for setting in others)
    kept = ", ".join(f"{setting.path}={own[setting.path]}" for setting in others)
    return [f"{now} has no effect: the search keeps its own {kept}."]


def _given_options() -> list[tuple[str, str | None, Any]]:
    """Option, name in search.json and value of each kept option given on the command line."""
    context = click.get_current_context()
    options = {each.name: each.opts[0] for each in context.command.params}
    return [
        (options[name], stored, context.params[name])
        for name, stored in _STORED_AS.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
