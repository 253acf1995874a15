"""Tables of a whole output: which volumes they include, and whether they are out of date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from deploy.predicting.job import Work
from deploy.predicting.ledger import Entry, read_finished
from deploy.predicting.measures import KEYS as MEASURES_KEYS
from deploy.predicting.measures import MEASURES, with_earlier, write_measures
from deploy.predicting.overwrite_guard import require_own_table
from deploy.predicting.review import KEYS as REVIEW_KEYS
from deploy.predicting.review import REVIEW, write_review
from deploy.predicting.volume_status import stored_md5
from maag.storage.store import Store

_Listed = Callable[[], Mapping[str, str]]
"""Versions by key of everything in an output, listed lazily and once."""
_BEGINNINGS = {name: ",".join(keys).encode() for name, keys in ((MEASURES, MEASURES_KEYS), (REVIEW, REVIEW_KEYS))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Summary of the tables."""

    patients_measured: int = 0
    """Rows of `measures.csv`, if requested."""
    frames_reviewed: int = 0
    """Rows of `review.csv`, if requested."""
    changed: int = 0
    """Volumes left out of `review.csv` as their labels were edited since."""
    without_expected_dice: int = 0
    """Volumes left out of `review.csv` as the ledger has no expected Dice of them."""
    stale: tuple[str, ...] = ()
    """Tables of an earlier call that this one did not rewrite although labels have changed."""


NO_TABLES = Tables()


def require_tables_replaceable(out: Store, work: Work) -> None:
    """Refuse to overwrite a file of the user's with a table. Raises as `require_own_table`."""
    for name in _requested(work):
        require_own_table(out, name, _BEGINNINGS[name])


def write_tables(
    out: Store, work: Work, wanted: Sequence[str], classes: Sequence[str], *, done: Collection[str], kept: int
) -> Tables:
    """Write the requested tables.

    Args:
        out: the output, with its ledger.
        work: which tables to write.
        wanted: the targets of this call, except failures.
        classes: of the model, background first.
        done: those of `wanted` that were labelled in this call.
        kept: how many of `wanted` were edited since.

    Raises:
        StorageError: the output cannot be read or written.
    """
    requested = _requested(work)
    # Measures are of the labels that maag wrote, so edited labels do not make them stale.
    others = {MEASURES: bool(done), REVIEW: bool(done or kept)}
    stale = tuple(name for name, differs in others.items() if differs and name not in requested and _is_ours(out, name))
    if not requested:
        return Tables(stale=stale)
    listed = cache(lambda: {found.key: found.version for found in out.list()})
    entries = _entries(out, wanted, classes, listed)
    measured = reviewed = changed = without_expected_dice = 0
    if work.measures:
        rows = {target: entries[target] for target in with_earlier(wanted, entries) if target in entries}
        measured = write_measures(out, {target: entry.volumes_ml for target, entry in rows.items()}, classes)
    if work.review:
        unchanged = [entry for entry in entries.values() if entry.target in done or _is_unchanged(out, entry, listed)]
        changed = len(entries) - len(unchanged)
        without_expected_dice = sum(not entry.expected_dice for entry in unchanged)
        reviewed = write_review(out, unchanged, classes)
    return Tables(
        patients_measured=measured,
        frames_reviewed=reviewed,
        changed=changed,
        without_expected_dice=without_expected_dice,
        stale=stale,
    )


def _requested(work: Work) -> list[str]:
    return [name for name, wanted in ((MEASURES, work.measures), (REVIEW, work.review)) if wanted]


def _is_ours(out: Store, name: str) -> bool:
    return out.stat(name) is not None and out.read_bytes(name).startswith(_BEGINNINGS[name])


def _is_unchanged(out: Store, entry: Entry, listed: _Listed) -> bool:
    """Whether the labels are those that the ledger line describes.

    In a bucket the version of an object is usually its MD5, which saves a request if it matches.
    """
    return listed().get(entry.target) == entry.target_md5 or stored_md5(out, entry.target) == entry.target_md5


def _entries(out: Store, wanted: Sequence[str], classes: Sequence[str], listed: _Listed) -> dict[str, Entry]:
    """Finished volumes by target: those `wanted`, then earlier ones with the same classes that still exist, newest
    first.
    """
    finished, labelled = read_finished(out), set(classes[1:])
    asked = {target: finished[target] for target in wanted if target in finished}
    earlier = {
        target: entry
        for target, entry in sorted(finished.items(), key=lambda item: item[1].finished_at, reverse=True)
        if target not in asked and all(set(frame) == labelled for frame in entry.volumes_ml)
    }
    return asked | {target: entry for target, entry in earlier.items() if target in listed()}
