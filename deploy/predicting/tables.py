"""The tables of a whole output: what goes into them, what is left out of them, and which are of an earlier call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from deploy.predicting.job import Work
from deploy.predicting.ledger import Entry, read_finished
from deploy.predicting.measures import KEYS as MEASURES_KEYS
from deploy.predicting.measures import MEASURES, with_earlier, write_measures
from deploy.predicting.replacing import require_replaceable
from deploy.predicting.review import KEYS as REVIEW_KEYS
from deploy.predicting.review import REVIEW, write_review
from deploy.predicting.standing import md5_there
from maag.storage.store import Store

_Listed = Callable[[], Mapping[str, str]]
"""The versions by key of all that is in an output, listed once and only where somebody asks."""
_BEGINNINGS = {name: ",".join(keys).encode() for name, keys in ((MEASURES, MEASURES_KEYS), (REVIEW, REVIEW_KEYS))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """What became of the tables."""

    patients_measured: int = 0
    """Rows of `measures.csv`, if it was asked for."""
    frames_reviewed: int = 0
    """Rows of `review.csv`, if it was asked for."""
    changed: int = 0
    """Volumes left out of it, whose labels somebody has changed since."""
    untold: int = 0
    """Volumes left out of it, of which the ledger has no expected Dice."""
    stale: tuple[str, ...] = ()
    """Names of those that an earlier call wrote, and this one not, though labels are others now."""


NO_TABLES = Tables()


def require_tables_replaceable(out: Store, work: Work) -> None:
    """Refuse to write a table where the user has a file of its name. Raises as `require_replaceable`."""
    for name in _asked_for(work):
        require_replaceable(out, name, _BEGINNINGS[name])


def write_tables(
    out: Store, work: Work, wanted: Sequence[str], classes: Sequence[str], *, done: Collection[str], kept: int
) -> Tables:
    """Write those tables that were asked for.

    Args:
        out: the output, with its ledger.
        work: says which.
        wanted: the targets of this call.
        classes: of the model, background first.
        done: those of `wanted` that were labelled in this call.
        kept: how many of `wanted` somebody has changed since.

    Raises:
        StorageError: the output cannot be read or written.
    """
    asked_for = _asked_for(work)
    # Measures are of the labels that maag wrote, so those that somebody has changed make none of them anew.
    others = {MEASURES: bool(done), REVIEW: bool(done or kept)}
    stale = tuple(name for name, differs in others.items() if differs and name not in asked_for and _is_ours(out, name))
    if not asked_for:
        return Tables(stale=stale)
    listed = cache(lambda: {found.key: found.version for found in out.list()})
    entries = _entries(out, wanted, classes, listed)
    measured = reviewed = changed = untold = 0
    if work.measures:
        rows = {target: entries[target] for target in with_earlier(wanted, entries) if target in entries}
        measured = write_measures(out, {target: entry.volumes_ml for target, entry in rows.items()}, classes)
    if work.review:
        unchanged = [entry for entry in entries.values() if entry.target in done or _is_unchanged(out, entry, listed)]
        changed = len(entries) - len(unchanged)
        untold = sum(not entry.expected_dice for entry in unchanged)
        reviewed = write_review(out, unchanged, classes)
    return Tables(patients_measured=measured, frames_reviewed=reviewed, changed=changed, untold=untold, stale=stale)


def _asked_for(work: Work) -> list[str]:
    return [name for name, asked in ((MEASURES, work.measures), (REVIEW, work.review)) if asked]


def _is_ours(out: Store, name: str) -> bool:
    return out.stat(name) is not None and out.read_bytes(name).startswith(_BEGINNINGS[name])


def _is_unchanged(out: Store, entry: Entry, listed: _Listed) -> bool:
    """Whether the labels are those that the line tells of.

    In a bucket the version of an object is its MD5 more often than not: where the two agree it is not asked for.
    """
    return listed().get(entry.target) == entry.target_md5 or md5_there(out, entry.target) == entry.target_md5


def _entries(out: Store, wanted: Sequence[str], classes: Sequence[str], listed: _Listed) -> dict[str, Entry]:
    """By target what is done, by the ledger: of those `wanted`, and then of earlier ones of the same classes that are
    still there, the last first.
    """
    finished, labelled = read_finished(out), set(classes[1:])
    asked = {target: finished[target] for target in wanted if target in finished}
    earlier = {
        target: entry
        for target, entry in sorted(finished.items(), key=lambda item: item[1].finished_at, reverse=True)
        if target not in asked and all(set(frame) == labelled for frame in entry.volumes_ml)
    }
    return asked | {target: entry for target, entry in earlier.items() if target in listed()}
