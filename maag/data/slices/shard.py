"""A worker's part of every batch and of every validation."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar


class _Sliceable(Protocol):
    def __getitem__(self: Rows, rows: slice, /) -> Rows: ...


Rows = TypeVar("Rows", bound=_Sliceable)


class Shard(NamedTuple):
    """Rows number `rank`, `rank + size`, … of anything; the default is all of them."""

    rank: int = 0
    """In [0, size)."""
    size: int = 1

    def of(self, whole: Rows) -> Rows:
        """This shard's rows of an array, tensor or sequence."""
        return whole[self.rank :: self.size]


WHOLE = Shard()
