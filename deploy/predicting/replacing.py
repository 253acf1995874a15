"""That labels replace no file of the user's: only what maag itself wrote, by the ledger, makes way for new labels."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import replace

from deploy.predicting.ledger import History, read_histories
from maag.errors import ConfigError, StorageError
from maag.storage.store import Store, StoredObject


class Replacing:
    """Knows what maag has written to an output; may be asked by any number of threads.

    The ledger is read where something lies in the way of a target that it did not know when it was last read, so never
    in an empty output, and once in one that is done again. Others may write to the output, too: they write down what
    they put there before they do, so a new reading knows whatever is in the way.
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
        if there is not None and not self._is_ours(there, target):
            raise ConfigError(_sentence(self._out, target))

    def absent_beside(self, target: str, names: Iterable[str]) -> list[str]:
        """Those of `names`, files to go beside the labels, that are not there; refuses what maag did not write.

        They have to be written down before they are put there, as labels are. Raises as `require_ours_or_none`.
        """
        absent = []
        for name in names:
            there = self._out.stat(name)
            if there is None:
                absent.append(name)
            elif not self._is_ours(there, target):
                raise ConfigError(_sentence(self._out, name))
        return absent

    def _is_ours(self, there: StoredObject, target: str) -> bool:
        with self._turn:
            if not self._knows(there.key, target) and self._strangers.get(there.key) != there.version:
                self._read()
                self._met_strangers |= not self._knows(there.key, target)
            return self._knows(there.key, target)

    def _knows(self, name: str, target: str) -> bool:
        found = self._histories.get(target, History())
        return bool(found.target_md5s) if name == target else found.knows(name)

    def _read(self) -> None:
        # Where the user's files lie the ledger would be read for each of them, longer each time by their own lines.
        before = self._listed() if self._met_strangers else {}
        # Without the attempts themselves, which may be of a million volumes.
        self._histories = {target: replace(found, last=None) for target, found in read_histories(self._out).items()}
        self._strangers = {name: version for name, version in before.items() if not self._knows(name, name)}

    def _listed(self) -> dict[str, str]:
        with contextlib.suppress(StorageError):  # of what has nothing to do with the labels, and only costs time
            return {found.key: found.version for found in self._out.list()}
        return {}


def require_replaceable(out: Store, name: str, beginning: bytes) -> None:
    """Refuse to write a file of the whole output, which no line names, where one lies that does not have maag's
    `beginning`, or no ledger at all.

    Raises as `Replacing.require_ours_or_none`.
    """
    if out.stat(name) is None:
        return
    if not (out.read_bytes(name).startswith(beginning) and read_histories(out)):
        raise ConfigError(_sentence(out, name))


def _sentence(out: Store, name: str) -> str:
    return (
        f"{out.child(name)} is there already, and no ledger there says that maag wrote it; move it away, or choose "
        "another output folder"
    )
