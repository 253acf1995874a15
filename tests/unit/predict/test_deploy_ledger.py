"""The ledger of predictions, read and written by several jobs."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.predicting.ledger import (
    LEDGER,
    Entry,
    FileLedger,
    History,
    StoreLedger,
    gather,
    now,
    read_entries,
    read_finished,
)
from maag.errors import ObjectChangedError
from maag.storage.opening import open_store
from maag.storage.store import Store, StoredObject

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


class Shelf:
    """A store in memory, as far as ledgers need one."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def write_bytes(self, key: str, content: bytes) -> None:
        self.objects[key] = content

    def read_bytes(self, key: str) -> bytes:
        return self.objects[key]

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return (StoredObject(key, None, "") for key in sorted(self.objects) if key.startswith(prefix))

    def stat(self, key: str) -> StoredObject | None:
        return StoredObject(key, None, "") if key in self.objects else None

    def child(self, key: str) -> str:
        return key


def test_a_long_ledger_is_in_parts_of_which_none_is_lost() -> None:
    shelf = Shelf()
    ledger = StoreLedger(shelf)  # type: ignore[arg-type]
    for place in range(600):
        ledger.append(entry(place))
    assert [len(content.splitlines()) for content in shelf.objects.values()] == [256, 256, 88]
    found = read_entries(shelf)  # type: ignore[arg-type]
    assert [each.target for each in found] == [f"{place}.nii.gz" for place in range(600)]


class SlowShelf(Shelf):
    """Ends the write of so many lines only when another line was added meanwhile."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.ledger = StoreLedger(self)  # type: ignore[arg-type]
        self.second = threading.Thread(target=lambda: self.ledger.append(entry(lines)))
        self._lines = lines

    def write_bytes(self, key: str, content: bytes) -> None:
        if content.count(b"\n") == self._lines and not self.second.ident:
            self.second.start()
            self.second.join(timeout=0.1)  # it waits for this write to end
            assert self.second.is_alive()
        super().write_bytes(key, content)


@pytest.mark.parametrize("lines", [1, 256])  # the last of which fills a part
def test_a_line_that_is_added_during_a_write_has_a_write_of_its_own(lines: int) -> None:
    shelf = SlowShelf(lines)
    for place in range(lines):
        shelf.ledger.append(entry(place))
    shelf.second.join()
    assert set(read_finished(shelf)) == {f"{place}.nii.gz" for place in range(lines + 1)}  # type: ignore[arg-type]


def test_what_jobs_did_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    out = open_store(str(tmp_path))
    attempts = [("2.nii.gz", "m"), ("1.nii.gz", "old"), ("0.nii.gz", "m"), ("1.nii.gz", "new")]
    for second, (target, model) in reversed([*enumerate(attempts)]):
        finished_at = f"2026-11-01T00:00:0{second}.000000+00:00"
        StoreLedger(out).append(replace(entry(0), target=target, model=model, finished_at=finished_at))
    assert [(found.target, found.model) for found in read_entries(out)] == attempts
    assert read_finished(out)["1.nii.gz"].model == "new"


def test_a_line_waits_until_another_process_has_written_its_own(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    FileLedger(path).append(entry(0))
    writer = threading.Thread(target=lambda: FileLedger(path).append(entry(1)))
    with path.open("ab") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        others.write(b'{"half of a li')
        others.flush()
        writer.start()
        writer.join(timeout=0.1)
        assert writer.is_alive()
        others.write(b'ne": 1}\n')
    writer.join()
    assert len(path.read_bytes().splitlines()) == 3
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz", "1.nii.gz"}


def test_a_line_is_on_the_disk_before_labels_get_into_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synchronised.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    FileLedger(tmp_path / LEDGER).append(entry(0))
    status = (tmp_path / LEDGER).stat()
    assert synchronised == [(status.st_ino, status.st_size)]


def test_what_failed_last_is_not_finished_though_it_once_was(tmp_path: Path) -> None:
    ledger, out = FileLedger(tmp_path / LEDGER), open_store(str(tmp_path))
    for place in (0, 1):
        ledger.append(entry(place))
    ledger.append(replace(entry(0), error="0.nii.gz: truncated", target_md5=None))
    assert set(read_finished(out)) == {"1.nii.gz"}


def test_bytes_that_are_no_text_are_a_line_cut_off(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(b'{"source": "caf\xc3\n')
    FileLedger(tmp_path / LEDGER).append(entry(0))
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz"}


@pytest.mark.parametrize("line", ["[]", "3", "null", '{"format_version": 3, "source": "a"}', '{"format_version": 3'])
def test_lines_that_are_no_whole_entry_are_passed_over(tmp_path: Path, line: str) -> None:
    (tmp_path / LEDGER).write_text(f"{line}\n")
    FileLedger(tmp_path / LEDGER).append(entry(0))
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz"}


def test_what_lay_beside_labels_stays_unknown_after_a_line_that_says_so() -> None:
    first, second = entry(0), replace(entry(0), side_files={"0.json": "ab"})
    history = History().then(first).then(second)
    assert history.may_have_written("0.json")
    assert history.may_have_written("0_probabilities.nii.gz")  # perhaps of the first attempt, which named nothing
    named = History().then(second)
    assert named.may_have_written("0.json")
    assert not named.may_have_written("0_probabilities.nii.gz")


def test_failures_add_no_labels_to_a_history() -> None:
    failed = replace(entry(0), error="0.nii.gz: truncated", target_md5=None)
    assert History().then(failed) == History(failed, frozenset(), frozenset())
    assert History().then(entry(0)).then(failed).target_md5s == {entry(0).target_md5}
