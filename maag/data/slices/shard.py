"""A worker's part of every batch and of every validation."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

from maag.errors import ConfigError


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


def require_shares(workers: int, batch_size: int) -> None:
    """Raise ConfigError if batches of `batch_size` slices have fewer slices than there are workers."""
    if workers > batch_size:
        raise ConfigError(
            f"{workers} workers cannot share batches of {batch_size} slices; use at most as many workers, or --set "
            "optim.batch_size=N"
        )
