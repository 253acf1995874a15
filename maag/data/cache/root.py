"""The cache folder, for what maag can rebuild: prepared sets, and the engines of exported models."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_root() -> Path:
    """$MAAG_CACHE, else ~/.cache/maag."""
    given = os.environ.get("MAAG_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "maag"
