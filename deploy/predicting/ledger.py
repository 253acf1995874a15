"""The ledger of a batch: what became of each volume, one JSON object a line, only ever added to.

A line that says "done" is written before the labels are put in their place, with their MD5: whatever is killed when, a
volume is done if and only if the labels that its line names are there. Files beside them come before that line, and are
named in one of their own before they come.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from maag.errors import ConfigError, ObjectChangedError
from maag.storage import storage_errors
from maag.storage.store import Store

LEDGER = "ledger.jsonl"
PARTS = "ledger/"
"""Where the parts of a ledger lie in a store whose objects cannot be added to."""
FORMAT_VERSION = 3
_LINES_A_PART = 256
_READINGS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the ledger: one attempt at one volume."""

    format_version: int = FORMAT_VERSION
    source: str
    """Path or URI."""
    target: str
    """Relative to the output, with `/`."""
    source_version: str | None
    """`sha256:` of a file's content, `etag:` of an object; None where it could not be read, or where
    something in the labels' place forbade to begin."""
    model: str
    """Digest of the model, and the options that change labels."""
    target_md5: str | None
    """Of the labels' file; None where there are none."""
    finished_at: str
    """UTC, ISO 8601."""
    seconds: float
    error: str | None
    """One sentence; None where the labels were written."""
    volumes_ml: tuple[dict[str, float], ...] = ()
    """For each frame: millilitres by foreground class."""
    expected_dice: tuple[dict[str, float], ...] = ()
    """For each frame: in [0, 1] by foreground class that was labelled, see `maag.expected_dice`; () in lines of before
    it was written down, and of failures."""
    orientation: str | None = None
    """Orientation code of its first frame, such as `LPS`; None where it is unknown or the axes are oblique, and in
    lines of before it was written down."""
    side_files: dict[str, str] | None = None
    """What was written beside the labels, such as probabilities, or was about to be: MD5 by name relative to the
    output; None in lines of before this was written down, and of failures."""


@dataclass(frozen=True, slots=True)
class History:
    """All attempts at one target."""

    last: Entry | None = None
    target_md5s: frozenset[str] = frozenset()
    """Of all labels that were ever written there."""
    side_names: frozenset[str] | None = frozenset()
    """Of all that was ever written beside them; None where a line is of before this was written down."""

    def then(self, entry: Entry) -> History:
        """The history with one attempt more."""
        told = self.side_names is not None and (entry.side_files is not None or entry.target_md5 is None)
        sides = frozenset((*(self.side_names or ()), *(entry.side_files or ()))) if told else None
        return History(entry, self.target_md5s | ({entry.target_md5} if entry.target_md5 else set()), sides)

    def knows(self, name: str) -> bool:
        """Whether the file of this name beside the labels may be maag's."""
        return self.side_names is None or name in self.side_names


class Ledger(Protocol):
    """Where attempts are written down."""

    def append(self, entry: Entry) -> None:
        """Add one line; on return it is on disk or in the store. From any thread. Raises StorageError."""


def now() -> str:
    """The time for `Entry.finished_at`."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def open_ledger(out: Store, folder: Path | None) -> Ledger:
    """The ledger of an output: of the local `folder` if it is one, else of the store. Raises StorageError."""
    return FileLedger(folder / LEDGER) if folder else StoreLedger(out)


class FileLedger:
    """A file that any number of threads, processes and, where its file system has locks, machines add to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, entry: Entry) -> None:
        """See Ledger. A line that a crash has cut off is ended first."""
        with storage_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if torn else b"") + _line_of(entry))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class StoreLedger:
    """Objects `ledger/JOB-NUMBER.jsonl`, each written by one process alone, again and again until it is full.

    Threads that add at the same time share one write.
    """

    def __init__(self, out: Store) -> None:
        self._out = out
        self._job = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self._part = 1
        self._lines: list[bytes] = []  # of the current part
        self._added = self._stored = 0
        self._state = threading.Lock()
        self._writing = threading.Lock()

    def append(self, entry: Entry) -> None:
        """See Ledger."""
        with self._state:
            self._lines.append(_line_of(entry))
            self._added += 1
            mine = self._added
        with self._writing:
            if self._stored >= mine:
                return
            with self._state:
                lines, added, key = list(self._lines), self._added, f"{PARTS}{self._job}-{self._part:05}.jsonl"
            self._out.write_bytes(key, b"".join(lines))
            self._stored = added
            if len(lines) >= _LINES_A_PART:
                with self._state:
                    del self._lines[: len(lines)]
                    self._part += 1


def read_finished(out: Store) -> dict[str, Entry]:
    """By target: its last attempt, where that succeeded.

    Raises:
        ConfigError: a line is of another format version.
        StorageError: the ledger is there and cannot be read.
    """
    histories = read_histories(out)
    return {target: found.last for target, found in histories.items() if found.last and found.last.error is None}


def read_histories(out: Store) -> dict[str, History]:
    """By target: all attempts at it. Raises as `read_finished`."""
    histories: dict[str, History] = {}
    for entry in read_entries(out):
        histories[entry.target] = histories.get(entry.target, History()).then(entry)
    return histories


def read_entries(out: Store) -> list[Entry]:
    """All attempts, the last one last. Raises as `read_finished`.

    An output that was copied from a bucket, or into one, goes on in the other way: what stands in both counts once.
    """
    keys = [found.key for found in out.list(PARTS) if found.key.endswith(".jsonl")]
    if out.stat(LEDGER):
        keys.append(LEDGER)
    entries = [entry for key in keys for entry in _entries_in(_content_of(out, key), out.child(key))]
    if keys == [LEDGER]:
        return entries
    return sorted({_line_of(entry): entry for entry in entries}.values(), key=lambda entry: entry.finished_at)


def gather(out: Store) -> None:
    """Write `ledger.jsonl` from the parts, for people and programs that look for it. Raises StorageError."""
    out.write_bytes(LEDGER, b"".join(_line_of(entry) for entry in read_entries(out)))


def _content_of(out: Store, key: str) -> bytes:
    """Another job, or worker, may add a line while it is read."""
    for _ in range(_READINGS - 1):
        with contextlib.suppress(ObjectChangedError):
            return out.read_bytes(key)
    return out.read_bytes(key)


def _line_of(entry: Entry) -> bytes:
    return json.dumps(asdict(entry), allow_nan=False).encode() + b"\n"


def _entries_in(content: bytes, place: str) -> Iterator[Entry]:
    for line in content.decode("utf-8", errors="replace").splitlines():
        try:
            plain = json.loads(line)
            version = plain["format_version"]
            entry = Entry(**plain) if version == FORMAT_VERSION else None
        except (ValueError, KeyError, TypeError):
            continue  # A line cut off by a crash: its volume was not done.
        if entry is None:
            raise ConfigError(f"{place}: format_version {version} is unknown; choose another output folder")
        yield entry
