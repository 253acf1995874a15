"""Shell patterns of inputs, also for keys of a store."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from glob import has_magic


def pattern_of(key: str) -> re.Pattern[str]:
    """The regular expression of a shell pattern: `*` and `?` match within a folder, `**/` any number of folders."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^]]*\])", key)
    return re.compile("".join(words.get(part) or _translated(part) for part in parts))


def _translated(part: str) -> str:
    """A set of characters, or plain text."""
    return re.sub(r"\\[Zz]$", "", fnmatch.translate(part))


def literal_folder(pattern: str) -> str:
    """The folders of a pattern before its first wildcard."""
    folders = pattern.split("/")[:-1]
    wild = next((index for index, part in enumerate(folders) if has_magic(part)), len(folders))
    return "/".join(folders[:wild]) or ("/" if pattern.startswith("/") else "")


def parents(place: str) -> Iterator[str]:
    """The parent folders of a path or key, nearest first."""
    while "/" in place:
        place = place.rpartition("/")[0]
        yield place or "/"
