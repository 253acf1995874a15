"""Notes and the final summary of `maag predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deploy.predicting.batch import Outcome
    from deploy.predicting.job import Work
    from deploy.predicting.tables import Tables


def summary_lines(outcome: Outcome, out: str, work: Work) -> list[str]:
    """Lines that count the volumes by outcome, and name the files in `out`."""
    from maag.cli.terminal import pluralized

    tables = outcome.tables
    done = f"{outcome.done} done, {outcome.skipped} skipped, {len(outcome.failed)} failed"
    lines = [f"{done}; the ledger is {out}/ledger.jsonl"]
    if outcome.kept:
        lines.append(
            f"{outcome.kept} of those skipped were edited since and are kept as they are"
            f"{', measures.csv does not include the edits' if work.measures else ''}; delete one to segment it again"
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
        lines.append(f"{pluralized(tables.patients_measured, 'patient')} measured: {out}/measures.csv")
    if work.review:
        lines.append(f"{pluralized(tables.frames_reviewed, 'frame')} sorted by expected Dice: {out}/review.csv")
    return lines + [f"Note: {sentence}" for sentence in table_notes(tables)]


def table_notes(tables: Tables) -> list[str]:
    """A sentence for each kind of volume that the tables leave out, and for tables that are out of date."""
    from maag.cli.terminal import pluralized

    notes = []
    if tables.changed:
        notes.append(
            f"review.csv leaves out {pluralized(tables.changed, 'volume')} whose labels were edited since, as their "
            "quality is unknown"
        )
    if tables.without_expected_dice:
        notes.append(
            f"review.csv leaves out {pluralized(tables.without_expected_dice, 'volume')} segmented by an earlier "
            "version of maag, which recorded no expected Dice; segment them again, without --resume, to include them"
        )
    if tables.stale:
        names = " and ".join(tables.stale)
        verb = "are" if len(tables.stale) > 1 else "is"
        options = " ".join(f"--{Path(name).stem}" for name in tables.stale)
        notes.append(
            f"{names} {verb} from an earlier call and may be out of date; the same call with --resume {options} "
            f"writes {'them' if len(tables.stale) > 1 else 'it'} again"
        )
    return notes


def uncorrected_note(classes: Sequence[str], num_networks: int, shortfalls: Mapping[str, float] | None) -> str | None:
    """Why a model does not correct the expected Dice of each class, and what it is still good for; None if it does.

    Args:
        classes: of the model, background first.
        num_networks: how many networks it averages.
        shortfalls: see `maag.expected_dice`; None if none were recorded.
    """
    if shortfalls is None:
        why = "as its training did not finish or an earlier version of maag trained it"
        if num_networks > 1:
            why = f"as it averages {num_networks} networks, whose own corrections do not apply to the average"
        return f"has no correction of its expected Dice, {why}: in review.csv only the order is meaningful"
    lacking = ", ".join(name for name in classes[1:] if name not in shortfalls)
    if not lacking:
        return None
    return (
        f"has no correction of the expected Dice of {lacking}, which its validation cases were too few to measure: in "
        "review.csv only the order of these values is meaningful"
    )


def failure_message(outcome: Outcome) -> str:
    """How many volumes failed, whether any succeeded, and the error of the first."""
    from maag.cli.terminal import pluralized

    failed, error = pluralized(len(outcome.failed), "volume"), outcome.failed[0].error
    if outcome.done or outcome.skipped:
        return f"{failed} failed, the rest are done; first error: {error}"
    if len(outcome.failed) == 1:
        return f"the only volume failed: {error}"
    return f"all {failed} failed; first error: {error}"
