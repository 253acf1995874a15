"""Prepare a data set, with progress and notes on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maag.config.data import DataConfig
    from maag.data.cache.prepared import PreparedData

_NOTES_SHOWN = 3


def prepare_and_report(directory: Path, data: DataConfig, scribbles: Sequence[str] = ()) -> PreparedData:
    """`prepare` in the cache of this machine; notes on the cases are printed each time, also for cached data."""
    from maag.cli.terminal import preparing
    from maag.data.cache.preparing import default_cache_root, prepare

    with preparing() as progress:
        prepared = prepare(directory, data, default_cache_root(), scribbles, progress)
    _show_notes(prepared)
    return prepared


def prepare_shapes_and_report(dataset: str, folder: Path, data: DataConfig, images: PreparedData) -> PreparedData:
    """`prepare_shapes` in the cache of this machine; notes on the cases are printed as by `prepare_and_report`.

    It is also reported where masks are oriented differently from the training `images`: the discriminator would learn
    other shapes.
    """
    from maag.cli.terminal import preparing, say
    from maag.data.cache.preparing import default_cache_root
    from maag.data.files.header_agreement import differing_orientations
    from maag.data.slices.shapes import prepare_shapes

    with preparing() as progress:
        prepared = prepare_shapes(dataset, folder, data, default_cache_root(), progress)
    _show_notes(prepared)
    orientations = {case.case_id: case.orientation for case in prepared.cases}
    trained = sorted({case.orientation for case in images.cases if case.orientation})
    if sentence := differing_orientations(orientations, trained):
        say(
            f"Note: --shapes {folder}: {sentence}; the discriminator takes all masks to have one orientation: save "
            "them in that of the images"
        )
    return prepared


def _show_notes(prepared: PreparedData) -> None:
    from maag.cli.terminal import say
    from maag.data.files.header_agreement import minority_orientations, minority_slice_axes
    from maag.data.notes import merged_notes

    notes = minority_orientations({case.case_id: case.orientation for case in prepared.cases})
    notes += minority_slice_axes({case.case_id: case.spacing_mm for case in prepared.cases})
    notes += merged_notes((case.case_id, note) for case in prepared.cases for note in case.notes)
    for note in notes[:_NOTES_SHOWN]:
        say(f"Note: {note}")
    if len(notes) > _NOTES_SHOWN:
        say(f"Note: … and {len(notes) - _NOTES_SHOWN} more; `maag data check` with the same data and --set lists them")
