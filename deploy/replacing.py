"""That labels replace no file of the user's: only what maag itself wrote, by the ledger, makes way for new labels."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from deploy.ledger import History, read_histories
from maag.errors import ConfigError
from maag.storage.store import Store


class Replacing:
    """Knows what maag has written to an output; may be asked by any number of threads.

    The ledger is read where something lies in the way of a target that it did not know when it was last read, so never
    in an empty output, and once in one that is done again. Others may write to the output, too: they write down labels
    before they put them there, so a new reading knows whatever is in the way.
    """

    def __init__(self, out: Store) -> None:
        self._out = out
        self._histories: dict[str, History] = {}
        self._turn = threading.Lock()

    def require_ours_or_none(self, target: str) -> None:
        """Refuse to write labels where a file lies that maag did not write.

        Raises:
            ConfigError: there is such a file.
            StorageError: the output or its ledger cannot be read.
        """
        if self._out.stat(target) is not None and not self._history_of(target).target_md5s:
            raise ConfigError(_sentence(self._out, target))

    def require_ours_or_none_beside(self, target: str, made: Mapping[str, str]) -> None:
        """Likewise for the files that go beside the labels: `made`, names with MD5s.

        These get into their place before their line is written, so what a killed job left may be unknown, but is the
        same. Raises as `require_ours_or_none`.
        """
        for name, md5 in made.items():
            if self._out.stat(name) is None or self._history_of(target).knows(name):
                continue
            if self._out.md5_of(name) != md5:
                raise ConfigError(_sentence(self._out, name))

    def _history_of(self, target: str) -> History:
        with self._turn:
            if not self._histories.get(target, History()).target_md5s:
                self._histories = read_histories(self._out)
            return self._histories.get(target, History())


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
