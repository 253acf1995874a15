"""That labels replace no file of the user's: only what maag itself wrote, by the ledger, makes way for new labels."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import replace

from deploy.ledger import History, read_histories
from maag.errors import ConfigError, StorageError
from maag.storage.store import Store, StoredObject


class Replacing:
    """Knows what maag has written to an output; may be asked by any number of threads.

    The ledger is read where something lies in the way of a target that it did not know when it was last read, so never
    in an empty output, and once in one that is done again. Others may write to the output, too: they write down labels
    before they put them there, so a new reading knows whatever is in the way.
    """

    def __init__(self, out: Store) -> None:
        self._out = out
        self._histories: dict[str, History] = {}
        self._strangers: dict[str, str] = {}
        """Versions of files that were there before the ledger was last read, and are no labels that it knows."""
        self._met_strangers = False
        self._turn = threading.Lock()

    def require_ours_or_none(self, target: str) -> None:
        """Refuse to write labels where a file lies that maag did not write.

        Raises:
            ConfigError: there is such a file.
            StorageError: the output or its ledger cannot be read.
        """
        there = self._out.stat(target)
        if there is not None and not self._history_of(target, there).target_md5s:
            raise ConfigError(_sentence(self._out, target))

    def require_ours_or_none_beside(self, target: str, made: Mapping[str, str]) -> None:
        """Likewise for the files that go beside the labels: `made`, names with MD5s.

        These get into their place before their line is written, so what a killed job left may be unknown, but is the
        same. Raises as `require_ours_or_none`.
        """
        for name, md5 in made.items():
            there = self._out.stat(name)
            if there is None or self._history_of(target, there).knows(name):
                continue
            if self._out.md5_of(name) != md5:
                raise ConfigError(_sentence(self._out, name))

    def _history_of(self, target: str, there: StoredObject) -> History:
        with self._turn:
            if target not in self._histories and self._strangers.get(there.key) != there.version:
                self._read()
                self._met_strangers |= target not in self._histories
            return self._histories.get(target, History())

    def _read(self) -> None:
        # Where the user's files lie the ledger would be read for each of them, longer each time by their own lines.
        before = self._listed() if self._met_strangers else {}
        # Without the attempts themselves, which may be of a million volumes.
        known = {name: replace(found, last=None) for name, found in read_histories(self._out).items()}
        self._histories = {target: found for target, found in known.items() if found.target_md5s}
        self._strangers = {name: version for name, version in before.items() if name not in self._histories}

    def _listed(self) -> dict[str, str]:
        with contextlib.suppress(StorageError):  # of what has nothing to do with the labels, and only costs time
            return {found.key: found.version for found in self._out.list()}
        return {}


def require_replaceable(out: Store, name: str) -> None:
    """Refuse to write a file of the whole output, which no line names, where one lies and no ledger at all.

    Raises as `Replacing.require_ours_or_none`.
    """
    if out.stat(name) is not None and not read_histories(out):
        raise ConfigError(_sentence(out, name))


def _sentence(out: Store, name: str) -> str:
    return (
        f"{out.child(name)} is there already, and no ledger there says that maag wrote it; move it away, or choose "
        "another output folder"
    )
