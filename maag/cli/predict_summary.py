"""What `maag predict` says of a batch when it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.predicting.batch import Outcome
    from deploy.predicting.job import Work
    from deploy.predicting.tables import Tables


def told_of(outcome: Outcome, out: str, work: Work) -> list[str]:
    """What became of the volumes that `work` was asked of, and what lies in `out`, a line each."""
    from maag.cli.terminal import counted

    tables = outcome.tables
    done = f"{outcome.done} done, {outcome.skipped} skipped, {len(outcome.failed)} failed"
    lines = [f"{done}; the ledger is {out}/ledger.jsonl"]
    if outcome.kept:
        lines.append(
            f"{outcome.kept} of those skipped were changed by somebody since and stay as they are"
            f"{', measures.csv has none of the changes' if work.measures else ''}; remove one to have it made again"
        )
    if outcome.orientation_differs:
        are = "is" if outcome.orientation_differs == 1 else "are"
        lines.append(
            f"{outcome.orientation_differs} of those done {are} oriented differently from the training images, by "
            "`orientation` in the ledger; --reorient would reorient them"
        )
    if outcome.orientation_unknown:
        lines.append(
            f"{outcome.orientation_unknown} of those done could not be reoriented and stayed as stored: their headers "
            "record no orientation, or their axes are oblique"
        )
    if work.measures:
        lines.append(f"{counted(tables.patients_measured, 'patient')} measured: {out}/measures.csv")
    if work.review:
        lines.append(f"{counted(tables.frames_reviewed, 'frame')} by the Dice to expect: {out}/review.csv")
    return lines + [f"Note: {sentence}" for sentence in told_as_left_out(tables)]


def told_as_left_out(tables: Tables) -> list[str]:
    """What is not in the tables that one may look for there, a sentence each."""
    from maag.cli.terminal import counted

    told = []
    if tables.changed:
        told.append(
            f"review.csv leaves out {counted(tables.changed, 'volume')} whose labels were changed by somebody since, "
            "as nothing is known of them"
        )
    if tables.untold:
        told.append(
            f"review.csv has no row of {counted(tables.untold, 'volume')} that an earlier maag segmented, which wrote "
            "down no expected Dice; segment them again, without --resume, to have it"
        )
    if tables.stale:
        names = " and ".join(tables.stale)
        verb = "are" if len(tables.stale) > 1 else "is"
        options = " ".join(f"--{Path(name).stem}" for name in tables.stale)
        told.append(
            f"{names} {verb} of an earlier call and may not fit the labels any more; the same call with --resume "
            f"{options} writes {'them' if len(tables.stale) > 1 else 'it'} anew"
        )
    return told


def why_failed(outcome: Outcome) -> str:
    """How many volumes failed, what became of the others, and why the first did."""
    from maag.cli.terminal import counted

    failed, error = counted(len(outcome.failed), "volume"), outcome.failed[0].error
    if outcome.done or outcome.skipped:
        return f"{failed} failed, the rest are done; the first: {error}"
    if len(outcome.failed) == 1:
        return f"the only volume failed, nothing was done: {error}"
    return f"all {failed} failed, nothing was done; the first: {error}"
