"""Exchange of Python objects between the workers of a group."""

from __future__ import annotations

from typing import Any

from torch import distributed


def gathered(own: Any) -> list[Any]:
    """The objects of all workers, in the order of their ranks; all must call it at once."""
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found
