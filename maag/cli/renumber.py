"""`maag data renumber`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from maag.cli.options import ANY_PATH, FOLDER
from maag.cli.problems import end_with
from maag.errors import ConfigError


@click.command("renumber")
@click.argument("labels", type=ANY_PATH, nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="Output folder; files keep their names.")
@click.option(
    "--number",
    "changes",
    multiple=True,
    required=True,
    metavar="OLD=NEW",
    help="Replace a number; all change at once, so `0=4` and `5=0` can be combined.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files in --out.")
def renumber_command(labels: tuple[Path, ...], out: Path, changes: tuple[str, ...], overwrite: bool) -> None:
    """Renumber LABELS: files or folders of NIfTI or PNG labels, as saved by an annotation program.

    ITK-SNAP and 3D Slicer save unannotated voxels as 0, and background strokes as a label of their own; maag expects
    the opposite. For ACDC, with background strokes drawn as label 5, and voxels painted as unlabelled as 4:

    \b
        maag data renumber drawn/ --out scribbles/ --number 0=4 --number 4=4 --number 5=0
    """
    from maag.cli.terminal import pluralized, print_table, progress_bar, say
    from maag.data.renumber import label_files, renumber

    numbers = _numbers(changes)
    sources = label_files(labels, out)
    with progress_bar("Renumbering labels") as progress:
        report = renumber(sources, out, numbers, progress, overwrite=overwrite)
    rows = [
        (str(old), str(numbers.get(old, old)), f"{count:,}".replace(",", " "))
        for old, count in sorted(report.voxels.items())
    ]
    if report.files:
        print_table(f"{pluralized(report.files, 'file')} in {out}", ("old number", "new number", "voxels"), rows)
    for absent in sorted(numbers.keys() - report.voxels.keys()):
        if numbers[absent] != absent:
            say(f"Note: no voxel has number {absent}.")
    end_with(
        report.problems,
        f"{len(report.problems)} of {len(sources)} files were not renumbered; correct them, and run again with "
        "--overwrite",
        some_done=report.files > 0,
    )


def _numbers(changes: tuple[str, ...]) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for change in changes:
        match = re.fullmatch(r"\s*(-?\d{1,9})\s*=\s*(-?\d{1,9})\s*", change)
        if not match:
            raise ConfigError(f"--number {change}: give the old and the new number, such as 0=4")
        old, new = int(match[1]), int(match[2])
        if numbers.setdefault(old, new) != new:
            raise ConfigError(f"--number: {old} cannot become both {numbers[old]} and {new}; leave one out")
    return numbers
