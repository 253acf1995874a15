"""Inputs as they were given, and text files that list them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from maag.errors import ConfigError
from maag.storage import storage_errors
from maag.storage.keys import file_path, is_uri, split_uri
from maag.storage.opening import open_store

LISTS = ".txt"


def together(inputs: Sequence[str | Path]) -> Iterator[tuple[str, ...]]:
    """The places that are meant, each by itself, and those of a list in one. Raises as `without_lists`."""
    for given in inputs:
        yield tuple(without_lists([given]))


def without_lists(inputs: Sequence[str | Path], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The places that are meant, lists replaced by what they list.

    Raises:
        ConfigError: a place is empty, or a list is no text, or lists nothing or itself, as the lists `above` would.
        StorageError: a list cannot be read.
    """
    for given in inputs:
        place = local_place(given)
        if not place:  # as of a script's variable that is not set; the working folder is not meant
            raise ConfigError("an input is empty; give a file, a folder, a pattern or a URI, '.' for the folder here")
        if not (place.lower().endswith(LISTS) and (is_uri(place) or Path(place).is_file())):
            yield place
        elif place in above:
            raise ConfigError(f"{place}: a list that lists itself, by way of {above[-1]}; take it out there")
        else:
            if not (lines := _lines_of(place)):
                raise ConfigError(f"{place}: the list names no input; write one on each line")
            yield from without_lists(lines, (*above, place))


def local_place(given: str | Path) -> str:
    """A place as it was given, `file:///PATH` as PATH. Raises ConfigError where that is on another host."""
    return str(file_path(str(given))) if str(given).lower().startswith("file://") else str(given)


def _lines_of(given: str) -> list[str]:
    """What a list says, line by line; paths are relative to it, empty lines and those that begin with # say nothing."""
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
