"""Recognise volumes in unsupported formats by their names, so that none is skipped silently."""

from __future__ import annotations

FOREIGN = "of a format that maag does not read"
"""Reason for passing over such a file."""

_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".hdr")


def is_foreign(name: str) -> bool:
    """Whether `name` is that of such a volume or of its header."""
    return name.lower().endswith(_SUFFIXES)
