"""Inputs, and text files that list inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from maag.errors import ConfigError
from maag.storage import storage_errors
from maag.storage.keys import file_path, is_uri, split_uri
from maag.storage.opening import open_store

LISTS = ".txt"


def together(inputs: Sequence[str | Path]) -> Iterator[tuple[str, ...]]:
    """For each input, a tuple: the input itself, or everything that a list names. Raises as `without_lists`."""
    for given in inputs:
        yield tuple(without_lists([given]))


def without_lists(inputs: Sequence[str | Path], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The inputs, with lists replaced by what they list; `above` are the lists that contain them.

    Raises:
        ConfigError: an input is empty, or a list is not text, or lists nothing or itself.
        StorageError: a list cannot be read.
    """
    for given in inputs:
        place = local_place(given)
        if not place:  # as from an unset variable of a script
            raise ConfigError(
                "an input is empty; give a file, a folder, a pattern or a URI, '.' for the current folder"
            )
        if not (place.lower().endswith(LISTS) and (is_uri(place) or Path(place).is_file())):
            yield place
        elif place in above:
            raise ConfigError(f"{place}: the list contains itself, through {above[-1]}; remove it there")
        else:
            if not (lines := _lines_of(place)):
                raise ConfigError(f"{place}: the list names no input; write one per line")
            yield from without_lists(lines, (*above, place))


def local_place(given: str | Path) -> str:
    """The input as given, `file:///PATH` as PATH. Raises ConfigError if that is on another host."""
    return str(file_path(str(given))) if str(given).lower().startswith("file://") else str(given)


def absolute_place(place: str) -> str:
    """The path from the root, with links as they are, for calls in other working directories; a URI as it is."""
    return place if is_uri(place) else str(Path(place).absolute())


def resolved_place(place: str) -> str:
    """The canonical path, or the URI with a lower-case scheme."""
    # Not Path.resolve, which fails on circular links.
    return "/".join(split_uri(place)).rstrip("/") if is_uri(place) else os.path.realpath(place)


def _lines_of(given: str) -> list[str]:
    """Items of a list, one per line; paths are relative to the list, and empty lines and those with # are skipped."""
    if is_uri(given):
        root, key = split_uri(given)
        base, content = given.rpartition("/")[0], open_store(root).read_bytes(key)
    else:
        base = str(Path(given).parent)
        with storage_errors(Path(given), "read"):
            content = Path(given).read_bytes()
    try:
        lines = [line.strip() for line in content.decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{given}: a list of inputs must be UTF-8 text; save it so") from error
    return [
        line if is_uri(line) or Path(line).is_absolute() else f"{base}/{line}"
        for line in lines
        if line and not line.startswith("#")
    ]
