from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from deploy.ledger import LEDGER, Entry, FileLedger, StoreLedger, gather, now, read_entries, read_finished
from maag.errors import ObjectChangedError
from maag.storage.opening import open_store
from maag.storage.store import Store

ENTRIES = 200


def entry(place: int) -> Entry:
    return Entry(
        source=f"{place}.nii.gz", target=f"{place}.nii.gz", source_version="sha256:0", model="m",
        target_md5=f"{place:032x}", finished_at=now(), seconds=0.1, error=None,
    )  # fmt: skip


def test_a_ledger_is_read_while_others_add_to_it(tmp_path: Path) -> None:
    ledger, out = FileLedger(tmp_path / LEDGER), open_store(str(tmp_path))
    ledger.append(entry(0))
    writer = threading.Thread(target=lambda: [ledger.append(entry(place)) for place in range(1, ENTRIES)])
    writer.start()
    seen = [len(read_finished(out))]
    while writer.is_alive():
        seen.append(len(read_finished(out)))
    writer.join()
    assert seen == sorted(seen)
    assert len(read_finished(out)) == ENTRIES


class Busy:
    """A store in which something changes while it is read, the first few times."""

    def __init__(self, store: Store, times: int) -> None:
        self._store, self._left = store, times

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read_bytes(self, key: str) -> bytes:
        self._left -= 1
        if self._left >= 0:
            raise ObjectChangedError(f"{key} changed while it was read")
        return self._store.read_bytes(key)


def test_a_line_added_during_a_reading_makes_it_read_again(tmp_path: Path) -> None:
    FileLedger(tmp_path / LEDGER).append(entry(7))
    assert set(read_finished(Busy(open_store(str(tmp_path)), 3))) == {"7.nii.gz"}  # type: ignore[arg-type]


def test_a_ledger_that_was_copied_from_a_bucket_or_into_one_goes_on(tmp_path: Path) -> None:
    """Once a folder holds parts, once a bucket a file: in both cases the other kind is added to."""
    out = open_store(str(tmp_path))
    StoreLedger(out).append(entry(0))
    gather(out)
    assert len(read_entries(out)) == 1
    FileLedger(tmp_path / LEDGER).append(replace(entry(0), model="other"))
    FileLedger(tmp_path / LEDGER).append(entry(1))
    assert {name: found.model for name, found in read_finished(out).items()} == {
        "0.nii.gz": "other",
        "1.nii.gz": "m",
    }
    StoreLedger(out).append(entry(2))
    gather(out)
    assert [found.target for found in read_entries(out)] == [f"{place}.nii.gz" for place in (0, 0, 1, 2)]
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 4
