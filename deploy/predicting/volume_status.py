"""Status of one volume's labels in the output, by the ledger: to do, done, or edited."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from deploy.predicting.ledger import History
from maag.storage.digests import md5_of
from maag.storage.store import Store


class VolumeStatus(Enum):
    """Status of a volume's labels in the output."""

    TO_DO = "to do"
    DONE = "done"
    EDITED = "edited"
    """The labels were edited since maag wrote them."""


def status_of(
    out: Store, target: str, history: History, version: str, identity: str, side_files: Iterable[str] = ()
) -> VolumeStatus:
    """Status of the labels at `target` of a source of that `version`, for the model and options `identity`.

    A volume is done only if its side files exist: those named in its ledger line, or the requested `side_files` if an
    earlier version wrote the line. Edited labels are not segmented again if only side files are missing.

    Labels are stored atomically, after their MD5 is in the ledger: a file with an MD5 that the ledger never had for
    this target is not a partial write, but was edited.

    Raises:
        StorageError: the output cannot be read.
    """
    last = history.last
    if last is None or (last.source_version, last.model) != (version, identity):
        return VolumeStatus.TO_DO
    md5 = stored_md5(out, target)
    if md5 is None:
        return VolumeStatus.TO_DO
    if md5 not in history.target_md5s:
        return VolumeStatus.EDITED
    required = side_files if last.side_files is None else last.side_files
    done = md5 == last.target_md5 and all(out.stat(name) for name in required)
    return VolumeStatus.DONE if done else VolumeStatus.TO_DO


def stored_md5(out: Store, target: str) -> str | None:
    """MD5 of the file at `target`; None if there is none. Raises StorageError."""
    known = out.md5_of(target)
    if known is not None or out.stat(target) is None:
        return known
    # Objects that other programs wrote to a bucket may have no MD5.
    with tempfile.TemporaryDirectory(prefix="maag-predict-") as folder:
        path = Path(folder) / "labels"
        out.fetch(target, path)
        with path.open("rb") as content:
            return md5_of(content).hexdigest()
