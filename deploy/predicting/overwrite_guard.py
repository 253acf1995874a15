"""Labels overwrite only earlier labels of the same image, by the ledger, and no file of the user's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import replace

from deploy.inputs.input_lists import resolved_place
from deploy.predicting.ledger import History, Origin, read_histories
from maag.errors import ConfigError, StorageError
from maag.storage.store import Store, StoredObject


class OverwriteGuard:
    """Refuses to overwrite files in an output that maag did not write, or labels of another image; thread-safe.

    The ledger is read again when a target already has a file that the last reading did not know: never in an empty
    output, and once in one that is segmented again. Other processes may write to the output too; they record their
    files in the ledger first, so a new reading knows them.
    """

    def __init__(self, out: Store) -> None:
        self._out = out
        self._histories: dict[str, History] = {}
        self._foreign: dict[str, str] = {}
        """Versions of files that existed before the ledger was last read, and that it does not name."""
        self._found_foreign = False
        self._lock = threading.Lock()

    def require_overwritable(self, target: str, origin: Origin) -> None:
        """Refuse to store labels of `origin` as `target` in place of other files than earlier labels of this image.

        Raises:
            ConfigError: maag did not write the file there; or it wrote it, or one that counts as the same case, for
                another image.
            StorageError: the output or its ledger cannot be read.
        """
        found = self._out.stat(target)
        if found is not None:
            if not self._is_own(found, target):
                raise ConfigError(_refusal(self._out, target))
            self._require_same_image(target, origin, "replace them")
        twin = _twin_of(target)
        if twin is not None and (other := self._out.stat(twin)) is not None and self._is_own(other, twin):
            self._require_same_image(twin, origin, "count as the same case")

    def _require_same_image(self, written: str, origin: Origin, otherwise: str) -> None:
        earlier = self._histories[written].origin
        if earlier and not _are_same_image(earlier, origin):
            raise ConfigError(
                f"{self._out.child(written)} contains labels of {earlier.place}, according to the ledger, and those of "
                f"{origin.place} would {otherwise}; move that file away, or choose another output folder"
            )

    def missing_side_files(self, target: str, names: Iterable[str]) -> list[str]:
        """Those of the side files `names` that do not exist, to be recorded before they are stored, as labels are.

        Refuses to overwrite files that maag did not write. Raises as `require_overwritable`.
        """
        missing = []
        for name in names:
            found = self._out.stat(name)
            if found is None:
                missing.append(name)
            elif not self._is_own(found, target):
                raise ConfigError(_refusal(self._out, name))
        return missing

    def _is_own(self, found: StoredObject, target: str) -> bool:
        with self._lock:
            if not self._is_recorded(found.key, target) and self._foreign.get(found.key) != found.version:
                self._read_ledger()
                self._found_foreign |= not self._is_recorded(found.key, target)
            return self._is_recorded(found.key, target)

    def _is_recorded(self, name: str, target: str) -> bool:
        history = self._histories.get(target, History())
        return bool(history.target_md5s) if name == target else history.may_have_written(name)

    def _read_ledger(self) -> None:
        # Without these versions the ledger, growing each time, would be read again for every file of the user's.
        before = self._list_versions() if self._found_foreign else {}
        # Without the attempts, of which there may be millions.
        self._histories = {target: replace(found, last=None) for target, found in read_histories(self._out).items()}
        self._foreign = {name: version for name, version in before.items() if not self._is_recorded(name, name)}

    def _list_versions(self) -> dict[str, str]:
        with contextlib.suppress(StorageError):  # the listing only saves time
            return {found.key: found.version for found in self._out.list()}
        return {}


def _twin_of(target: str) -> str | None:
    """The labels that count as the same case: `a.nii` for `a.nii.gz`, and the reverse."""
    if target.lower().endswith(".nii.gz"):
        return target[: -len(".gz")]
    return f"{target}.gz" if target.lower().endswith(".nii") else None


def _are_same_image(one: Origin, other: Origin) -> bool:
    """Whether they have the same content, as after a move, or the same place, as after a change."""
    return one.version == other.version or resolved_place(one.place) == resolved_place(other.place)


def require_own_table(out: Store, name: str, beginning: bytes) -> None:
    """Refuse to overwrite a table that does not start with maag's `beginning`, or in an output without a ledger.

    Raises as `OverwriteGuard.require_overwritable`.
    """
    if out.stat(name) is None:
        return
    if not (out.read_bytes(name).startswith(beginning) and read_histories(out)):
        raise ConfigError(_refusal(out, name))


def _refusal(out: Store, name: str) -> str:
    return (
        f"{out.child(name)} already exists and was not written by maag, according to the ledger; move it away, or "
        "choose another output folder"
    )
