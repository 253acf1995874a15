"""`maag config`."""

from __future__ import annotations

from pathlib import Path

import click

from maag.cli.options import DATASETS, config_options, json_option
from maag.cli.resolving import resolve_config


@click.group("config")
def config_group() -> None:
    """Show settings."""


@config_group.command("show")
@click.option(
    "--dataset", type=click.Choice(DATASETS), default="acdc", show_default=True, help="Layout of the data set."
)
@config_options()
@json_option
def config_show_command(
    dataset: str, preset: str | None, config_file: Path | None, changes: tuple[str, ...], as_json: bool
) -> None:
    """List every setting with its type, value, default and help."""
    from maag.cli.terminal import print_json, print_table
    from maag.config import codec
    from maag.config.schema import Config

    config = resolve_config(dataset, preset, config_file, changes)
    if as_json:
        print_json(codec.document(config))
        return
    defaults = {setting.path: setting.value for setting in codec.leaves(Config())}
    rows = [
        (
            setting.path,
            setting.type,
            _shown(setting.value),
            "" if setting.value == defaults[setting.path] else _shown(defaults[setting.path]),
            setting.help,
        )
        for setting in codec.leaves(config)
    ]
    print_table(
        f"Settings (config {codec.digest(config)}); change one with --set SETTING=VALUE",
        ("setting", "type", "value", "default if different", "help"),
        rows,
        numbers=False,
    )


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
