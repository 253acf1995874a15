"""Volumes in formats that maag does not read, known by their names, so that none is passed over in silence."""

from __future__ import annotations

FOREIGN = "of a format that maag does not read"
"""Why such a file was passed over."""

_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".hdr")


def is_foreign(name: str) -> bool:
    """Whether it is the name of such a volume, or of its header."""
    return name.lower().endswith(_SUFFIXES)
