"""How it stands with one volume's labels in the output, by the ledger: to do, done, or changed by somebody's hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from deploy.predicting.ledger import History
from maag.storage.digests import md5_of
from maag.storage.store import Store


class Standing(Enum):
    """Why a volume is left alone, or not."""

    TO_DO = "to do"
    DONE = "done"
    CHANGED = "changed"
    """Since maag wrote them somebody has changed the labels."""


def standing_of(
    out: Store, target: str, history: History, version: str, identity: str, side_files: Iterable[str] = ()
) -> Standing:
    """How it stands with the labels at `target` of a source of that `version`, for the model and options `identity`.

    Done is what also has its side files: those that its line in the ledger names, or if it is of before lines did
    `side_files`, which are asked for. Labels that somebody has changed are not made again for the sake of those.

    Labels get into their place whole, by a rename or in one upload, and after their MD5 is in the ledger: what is there
    with an MD5 that the ledger never had for this target is no half of ours, but somebody's work.

    Raises:
        StorageError: the output cannot be read.
    """
    last = history.last
    if last is None or (last.source_version, last.model) != (version, identity):
        return Standing.TO_DO
    there = md5_there(out, target)
    if there is None:
        return Standing.TO_DO
    if there not in history.target_md5s:
        return Standing.CHANGED
    beside = side_files if last.side_files is None else last.side_files
    done = there == last.target_md5 and all(out.stat(name) for name in beside)
    return Standing.DONE if done else Standing.TO_DO


def md5_there(out: Store, target: str) -> str | None:
    """Of the file at `target`; None only where there is none. Raises StorageError."""
    known = out.md5_of(target)
    if known is not None or out.stat(target) is None:
        return known
    # What other programs put into a bucket may have no MD5 there.
    with tempfile.TemporaryDirectory(prefix="maag-predict-") as folder:
        path = Path(folder) / "labels"
        out.fetch(target, path)
        with path.open("rb") as content:
            return md5_of(content).hexdigest()
