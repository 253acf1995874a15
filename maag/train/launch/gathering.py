"""What the workers of a group say to one another beside their gradients."""

from __future__ import annotations

from typing import Any

from torch import distributed


def gathered(own: Any) -> list[Any]:
    """What each worker has, in the order of their ranks; all must call it at once."""
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found
