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
@click.option("--out", type=FOLDER, required=True, help="Where the new files go, under the names of the old ones.")
@click.option(
    "--number",
    "changes",
    multiple=True,
    required=True,
    metavar="OLD=NEW",
    help="What a number becomes; all change at once, so `0=4` and `5=0` together lose nothing.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that are in --out already.")
def renumber_command(labels: tuple[Path, ...], out: Path, changes: tuple[str, ...], overwrite: bool) -> None:
    """Give LABELS other numbers: files or folders of NIfTI or PNG labels, as a drawing program saved them.

    ITK-SNAP and 3D Slicer call 0 what nobody drew on, and a stroke of background is a label like any other; data sets
    here want it the other way round. For ACDC, with background strokes drawn as label 5, and as label 4 what is painted
    to be unlabelled:

    \b
        maag data renumber drawn/ --out scribbles/ --number 0=4 --number 4=4 --number 5=0
    """
    from maag.cli.terminal import counted, counting, print_table, say
    from maag.data.renumber import label_files, renumber

    numbers = _numbers(changes)
    sources = label_files(labels, out)
    with counting("Renumbering labels") as progress:
        report = renumber(sources, out, numbers, progress, overwrite=overwrite)
    rows = [
        (str(old), str(numbers.get(old, old)), f"{count:,}".replace(",", " "))
        for old, count in sorted(report.voxels.items())
    ]
    if report.files:
        print_table(f"{counted(report.files, 'file')} in {out}", ("old number", "new number", "voxels"), rows)
    for absent in sorted(numbers.keys() - report.voxels.keys()):
        if numbers[absent] != absent:
            say(f"Note: no voxel has the number {absent}.")
    end_with(
        report.problems,
        f"{len(report.problems)} of {len(sources)} files got no new numbers; correct them, and run again with "
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
