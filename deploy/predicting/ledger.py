"""The ledger of a batch: the outcome of each attempt at a volume, one JSON object per line, append-only.

The line of a volume that is done is written before its labels, with their MD5: whenever a process is killed, a volume
is done if and only if the labels that its line names exist. Side files are written before that line, after a line of
their own that announces them.
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
from typing import NamedTuple, Protocol

from maag.errors import ConfigError, ObjectChangedError
from maag.storage import storage_errors
from maag.storage.store import Store

LEDGER = "ledger.jsonl"
PARTS = "ledger/"
"""Prefix of the parts of a ledger in a store whose objects cannot be appended to."""
FORMAT_VERSION = 3
_LINES_A_PART = 256
_READINGS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the ledger: one attempt at one volume."""

    format_version: int = FORMAT_VERSION
    source: str
    """Absolute path or URI; in lines of earlier versions the path as given."""
    target: str
    """Relative to the output, with `/`."""
    source_version: str | None
    """`sha256:` of a file's content, `etag:` of an object; None if it could not be read, or a file of the user's is in
    the place of the labels."""
    model: str
    """Digest of the model, and the options that change labels."""
    target_md5: str | None
    """MD5 of the label file; None if there is none."""
    finished_at: str
    """UTC, ISO 8601."""
    seconds: float
    error: str | None
    """One sentence; None if the labels were written."""
    volumes_ml: tuple[dict[str, float], ...] = ()
    """For each frame: millilitres by foreground class."""
    expected_dice: tuple[dict[str, float], ...] = ()
    """For each frame: in [0, 1] by foreground class that was labelled, see `maag.expected_dice`; () in lines of
    earlier versions, and of failures."""
    orientation: str | None = None
    """Orientation code of its first frame, such as `LPS`; None where it is unknown or the axes are oblique, and in
    lines of earlier versions."""
    side_files: dict[str, str] | None = None
    """Files written, or about to be written, beside the labels, such as probabilities: MD5 by name relative to the
    output; None in lines of earlier versions, and of failures."""


class Origin(NamedTuple):
    """The image that labels are of."""

    place: str
    """Path or URI."""
    version: str | None
    """See `Entry.source_version`."""


@dataclass(frozen=True, slots=True)
class History:
    """All attempts at one target."""

    last: Entry | None = None
    """The last attempt that read its source, else the last of all: one that stopped before, as the source could not be
    read or its labels were refused, does not change what is known of the labels."""
    target_md5s: frozenset[str] = frozenset()
    """MD5s of all labels ever written there."""
    side_names: frozenset[str] | None = frozenset()
    """Names of all files ever written beside them; None if an earlier version wrote a line without them."""

    origin: Origin | None = None
    """The image of the last labels written there; None if there were none."""

    def then(self, entry: Entry) -> History:
        """The history with one more attempt."""
        known = self.side_names is not None and (entry.side_files is not None or entry.target_md5 is None)
        sides = frozenset((*(self.side_names or ()), *(entry.side_files or ()))) if known else None
        stopped_before = entry.source_version is None and self.last is not None and self.last.source_version is not None
        last = self.last if stopped_before else entry
        if not entry.target_md5:
            return History(last, self.target_md5s, sides, self.origin)
        return History(last, self.target_md5s | {entry.target_md5}, sides, Origin(entry.source, entry.source_version))

    def may_have_written(self, name: str) -> bool:
        """Whether maag may have written the side file of this name."""
        return self.side_names is None or name in self.side_names


class Ledger(Protocol):
    """Records attempts."""

    def append(self, entry: Entry) -> None:
        """Add one line; on return it is on disk or in the store. Thread-safe. Raises StorageError."""


def now() -> str:
    """The current time in the format of `Entry.finished_at`."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def open_ledger(out: Store, folder: Path | None) -> Ledger:
    """The ledger of an output: in the local `folder` if given, else in the store. Raises StorageError."""
    return FileLedger(folder / LEDGER) if folder else StoreLedger(out)


class FileLedger:
    """A file that threads, processes and, if the file system supports locks, machines append to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, entry: Entry) -> None:
        """See Ledger. A line truncated by a crash is terminated first."""
        with storage_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                rest = (b"\n" if torn else b"") + _line_of(entry)
                while rest:  # a full disk takes a part of it, and only the next write is an error
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class StoreLedger:
    """Objects `ledger/JOB-NUMBER.jsonl`, each rewritten by a single process until it is full.

    Threads that append at the same time share one write.
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
    """The last attempt at each target, see `History`, if it succeeded.

    Raises:
        ConfigError: a line has another format version.
        StorageError: the ledger exists and cannot be read.
    """
    histories = read_histories(out)
    return {target: found.last for target, found in histories.items() if found.last and found.last.error is None}


def read_histories(out: Store) -> dict[str, History]:
    """All attempts by target. Raises as `read_finished`."""
    histories: dict[str, History] = {}
    for entry in read_entries(out):
        histories[entry.target] = histories.get(entry.target, History()).then(entry)
    return histories


def read_entries(out: Store) -> list[Entry]:
    """All attempts in order of time. Raises as `read_finished`.

    An output copied between a folder and a bucket has both kinds of ledger; attempts in both count once.
    """
    keys = [found.key for found in out.list(PARTS) if found.key.endswith(".jsonl")]
    if out.stat(LEDGER):
        keys.append(LEDGER)
    entries = [entry for key in keys for entry in _entries_in(_content_of(out, key), out.child(key))]
    if keys == [LEDGER]:
        return entries
    return sorted({_line_of(entry): entry for entry in entries}.values(), key=lambda entry: entry.finished_at)


def gather(out: Store) -> None:
    """Write `ledger.jsonl` from the parts, for people and other programs. Raises StorageError."""
    out.write_bytes(LEDGER, b"".join(_line_of(entry) for entry in read_entries(out)))


def _content_of(out: Store, key: str) -> bytes:
    """Content of an object; retried, as another job or worker may append while it is read."""
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
            continue  # a line truncated by a crash: its volume is not done
        if entry is None:
            raise ConfigError(f"{place}: format_version {version} is unknown; choose another output folder")
        yield entry
