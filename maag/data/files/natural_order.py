"""Natural sort order of file names: 2 before 10."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key in which runs of digits compare as numbers."""
    return tuple((int(part), "") if part.isdigit() else (-1, part.lower()) for part in _NUMBER.split(name) if part)
