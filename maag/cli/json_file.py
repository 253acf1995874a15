"""Options that take a JSON file written by maag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from maag.errors import ConfigError, MissingDataError, StorageError


class JsonFile(click.ParamType[Path]):
    """An existing file with a JSON object that has the keys `needed`; anything else is a usage error."""

    name = "FILE"

    def __init__(self, kind: str, needed: tuple[str, ...] = ()) -> None:
        self._kind = kind
        self._needed = needed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """See click.ParamType. Raises MissingDataError and ConfigError."""
        from maag.storage import read_json

        path, option = Path(value), param.opts[0] if param else self._kind
        if path.is_dir() or not path.exists():
            what = "it is a folder" if path.is_dir() else "there is no such file"
            raise MissingDataError(f"{option} {path}: {what}; give a {self._kind}")
        if not path.is_file():
            return path  # a pipe can be read only once
        try:
            content = read_json(path)
        except StorageError as error:
            raise ConfigError(f"{option}: {error}") from error
        absent = [name for name in self._needed if not isinstance(content, dict) or name not in content]
        if absent:
            raise ConfigError(
                f"{option} {path}: not a {self._kind} (it has no {absent[0]!r}); give one that maag wrote"
            )
        return path


CONFIG_FILE = JsonFile("config.json")
SPLIT_FILE = JsonFile("split.json", ("scheme", "scribbled", "val"))
