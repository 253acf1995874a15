"""Writing a prepared set: one file per array, case by case, so that only one case is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cache.prepared import FORMAT_VERSION, INDEX, PreparedCase
from maag.storage import write_json


class CaseSlices(NamedTuple):
    """A case's slices on the training grid."""

    images: NDArray[np.float32]
    """(Z, C, H, W)."""
    scribbles: NDArray[np.uint8]
    """(Z, R, H, W)."""
    masks: NDArray[np.uint8]
    """(Z, H, W)."""


class SetWriter:
    """Writes a prepared set to a folder; `write_index` completes it, and leaving the context closes its files."""

    def __init__(self, folder: Path, data: DataConfig, raters: Sequence[str]) -> None:
        self.cases: list[PreparedCase] = []
        """Written so far."""
        self._folder = folder
        self._data = data
        self._raters = raters
        self._open = ExitStack()
        # Unbuffered: on a full disk, what is left in a buffer would be written again on closing, and fail again.
        self._files = [self._open.enter_context(FileIO(folder / f"{name}.raw", "w")) for name in CaseSlices._fields]
        self._sizes = [0] * len(self._files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, case: PreparedCase, slices: CaseSlices) -> None:
        """Append a case's slices; its entry in `cases` gets their place.

        Raises OSError.
        """
        for file, array in zip(self._files, slices, strict=True):
            _write_all(file, np.ascontiguousarray(array).data.cast("B"))
        self._sizes = [file.tell() for file in self._files]
        start = self._num_slices
        self.cases.append(replace(case, start=start, stop=start + len(slices.masks)))

    def write_index(self, digest: str) -> None:
        """Close the files and write their index; cases that were only partly written are dropped.

        Raises OSError, StorageError.
        """
        for file, size in zip(self._files, self._sizes, strict=True):
            file.truncate(size)  # which also makes room for the index on a full disk
        self._open.close()
        index = {
            "format_version": FORMAT_VERSION,
            "digest": digest,
            "num_slices": self._num_slices,
            "size_px": self._data.size_px,
            "channels": self._data.channels,
            "raters": self._raters,
            "cases": [asdict(case) for case in self.cases],
        }
        write_json(self._folder / INDEX, index)

    @property
    def _num_slices(self) -> int:
        return self.cases[-1].stop if self.cases else 0


def _write_all(file: FileIO, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]
