"""Cases that are already in the cache: in other sets with the same settings, and in unfinished sets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from maag.data.cache.prepared import PreparedCase, PreparedData, open_prepared
from maag.data.cache.set_writer import CaseSlices, SetWriter
from maag.errors import StorageError
from maag.storage import flush_to_disk

_PART = ".part"
"""Suffix of the folders of unfinished sets; they begin with a dot, so no finished set has such a name."""


class KeptCases:
    """The cases with some `keys` that are prepared in the folder `cache_root`. Damaged sets are skipped."""

    def __init__(self, cache_root: Path, dataset: str, keys: Collection[str]) -> None:
        self._found: dict[str, tuple[PreparedData, PreparedCase]] = {}
        self._parts: dict[Path, set[str]] = {}  # names of all cases of unfinished sets with any of the keys
        wanted = set(keys)
        for path in sorted([*cache_root.glob(f"{dataset}-*/"), *cache_root.glob(f".{dataset}-*{_PART}/")]):
            try:
                prepared = open_prepared(path)
            except StorageError:
                continue
            here = {case.key: (prepared, case) for case in prepared.cases if case.key in wanted}
            self._found |= here
            if here and path.name.endswith(_PART):
                self._parts[path] = {case.case_id for case in prepared.cases}

    def of(self, key: str) -> tuple[PreparedCase, CaseSlices] | None:
        """The prepared case with this key and its slices, memory-mapped; None where it is not kept."""
        if key not in self._found:
            return None
        prepared, case = self._found[key]
        own = slice(case.start, case.stop)
        return case, CaseSlices(prepared.images[own], prepared.scribbles[own], prepared.masks[own])

    def remove_parts(self, place: Path, case_ids: Collection[str]) -> None:
        """Remove unfinished sets without other cases than `case_ids`, which are now in `place`; `place` itself stays.

        By name, so that a set does not stay for a case that has changed since.
        """
        for path, here in self._parts.items():
            if path != place and here <= set(case_ids):
                shutil.rmtree(path, ignore_errors=True)


def keep_part(writer: SetWriter, folder: Path, path: Path, kept: KeptCases) -> None:
    """Move the `folder` of the unfinished set `path` to where `KeptCases` finds it, unless as many cases are there.

    Unfinished sets whose cases it includes are removed: else fixing a set's bad cases one by one would leave a copy for
    each attempt. A folder that cannot be moved is left where it is.
    """
    place = path.with_name(f".{path.name}{_PART}")
    if not writer.cases or _num_cases(place) >= len(writer.cases):
        return
    with suppress(StorageError, OSError):
        writer.write_index("")
        for file in folder.iterdir():
            flush_to_disk(file)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(folder, place)
        kept.remove_parts(place, [case.case_id for case in writer.cases])


def _num_cases(part: Path) -> int:
    try:
        return len(open_prepared(part).cases)
    except StorageError:
        return 0
