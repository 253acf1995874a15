"""Checksums of stored objects."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK = 1 << 20


def md5_of(content: BinaryIO | None = None) -> _Hash:
    """The MD5 of the rest of a stream, which can be updated further; it protects against accidents only."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in iter(lambda: (content or io.BytesIO()).read(_CHUNK), b""):
        digest.update(chunk)
    return digest
