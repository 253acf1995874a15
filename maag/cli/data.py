"""`maag data`: check a data set, make a synthetic one, scribble, renumber labels, and label with a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.options import (
    ANY_PATH,
    DATASETS,
    FOLDER,
    config_options,
    data_option,
    dataset_option,
    json_option,
    scribbles_option,
)
from maag.cli.problems import end_with
from maag.cli.relabel import relabel_command
from maag.cli.renumber import renumber_command
from maag.cli.resolving import find_data, resolve_config
from maag.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maag.cli.picture import Labels
    from maag.data.scribble_files import ScribbleOptions, ScribblingReport

STYLES = ("skeleton", "skeleton-dilated", "random-walk", "curve", "expert")
_SHEET_TILES = 18


@click.group("data")
def data_group() -> None:
    """Check a data set, create a synthetic one, draw scribbles, renumber labels, or label with a model."""


data_group.add_command(relabel_command)
data_group.add_command(renumber_command)


@data_group.command("check")
@dataset_option
@data_option
@scribbles_option
@config_options()
@json_option
def data_check_command(
    dataset: str,
    data_dir: Path | None,
    scribbles: tuple[str, ...],
    preset: str | None,
    config_file: Path | None,
    changes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Read all cases, count classes and scribbles, and list every problem; exit 1 if a case is unusable."""
    from maag.cli.terminal import pluralized, print_json, print_table, progress_bar, say
    from maag.data.check import check

    directory = find_data(dataset, data_dir)
    config = resolve_config(dataset, preset, config_file, changes, directory)
    with progress_bar("Checking cases") as progress:
        report = check(directory, config.data, scribbles, progress)
    print_table(f"{report.directory}", ("", "count"), [(name, str(count)) for name, count in report.counts.items()])
    header = ("class", "masks with it", "scribbled slices", "coverage %", "std %")
    rows = [
        (
            item.name,
            str(item.cases_in_masks),
            str(item.slices_scribbled),
            f"{item.coverage_mean:.3g}",
            f"{item.coverage_std:.3g}",
        )
        for item in report.classes
    ]
    print_table("Classes", header, rows)
    for what, ranges in (("Spacing in mm", report.spacing_mm), ("Shape", report.shape)):
        parts = (
            f"{axis} {low:g}" if low == high else f"{axis} {low:g} to {high:g}" for axis, (low, high) in ranges.items()
        )
        if ranges:
            say(f"{what}: {', '.join(parts)}.")
    for note in report.notes:
        say(f"Note: {note}")
    for problem in report.problems:
        say(f"Problem: {problem}")
    say(f"{pluralized(len(report.problems), 'problem')}, {pluralized(len(report.notes), 'note')}.")
    if as_json:
        print_json(report.to_dict())
    return 1 if report.problems else 0


@data_group.command("phantom")
@dataset_option
@click.option("--out", type=FOLDER, required=True, help="Output folder; must be new or empty.")
@click.option("--cases", type=click.IntRange(min=4), default=20, show_default=True, help="Number of patients.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
def data_phantom_command(dataset: str, out: Path, cases: int, seed: int) -> None:
    """Write synthetic patients in the layout of a data set: images, masks and scribbles."""
    from maag.cli.terminal import say, shell_command
    from maag.data.catalog import write_phantom

    write_phantom(dataset, out, cases, seed)
    data = resolve_config(dataset, None, None, (), out).data
    value = () if data.unlabelled_value is not None else ("--set", f"data.unlabelled_value={data.num_classes}")
    command = shell_command("data check", "--dataset", dataset, "--data", out, *value)
    say(f"{cases} synthetic patients in {out}; check them with: {command}")


@data_group.command("scribble")
@click.argument("masks", type=ANY_PATH, nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="Output folder for the scribbles.")
@click.option("--style", type=click.Choice(STYLES), required=True, help="How the simulated annotator draws.")
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Fraction of each stroke to keep.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same strokes.")
@click.option(
    "--classes",
    type=click.IntRange(2, 254),
    help="Number of classes, background included; not with --dataset.  [default: from the largest label]",
)
@click.option(
    "--unlabelled",
    type=click.IntRange(2, 255),
    help="Value of unlabelled pixels.  [default: the data set's, else the number of classes]",
)
@click.option("--dataset", type=click.Choice(DATASETS), help="MASKS is a folder in this data set's layout.")
@click.option("--overwrite", is_flag=True, help="Replace existing scribbles in --out.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="With --dataset: change a setting.")
def data_scribble_command(
    masks: tuple[Path, ...],
    out: Path,
    style: str,
    ratio: float,
    seed: int,
    classes: int | None,
    unlabelled: int | None,
    dataset: str | None,
    overwrite: bool,
    changes: tuple[str, ...],
) -> None:
    """Draw scribbles from MASKS: files or folders of NIfTI or PNG labels, or a data set's folder.

    Writes NAME_scribble to --out, on the grid of the mask, and next to --out a contact sheet, OUT-sheet.png.
    """
    from maag.cli.picture import draw_contact_sheet
    from maag.cli.terminal import print_table, progress_bar, say
    from maag.data.scribble_files import (
        ScribbleOptions,
        count_classes,
        mask_files,
        masks_of_dataset,
        scribble_masks,
    )

    names: tuple[str, ...] = ()
    # Not inside, where it would be read as a scribble.
    sheet = out.resolve().with_name(f"{out.resolve().name}-sheet.png")
    if dataset:
        if len(masks) != 1:
            raise ConfigError(f"--dataset {dataset}: MASKS must be the one folder of the data set, got {len(masks)}")
        if classes:
            raise ConfigError(f"--classes {classes}: --dataset {dataset} has its own classes; leave --classes out")
        data = resolve_config(dataset, None, None, changes, masks[0]).data
        sources, names = masks_of_dataset(data, masks[0]), data.classes
        unlabelled = unlabelled or data.unlabelled_value
    elif changes:
        raise ConfigError(f"--set {changes[0]}: it needs --dataset; for other masks give --classes and --unlabelled")
    else:
        sources = mask_files(masks, sheet)
    num_classes = classes or len(names) or count_classes(sources)
    options = ScribbleOptions(
        style=style, ratio=ratio, seed=seed, num_classes=num_classes, unlabelled_value=unlabelled or num_classes
    )
    with progress_bar("Scribbling masks") as progress:
        report = scribble_masks(sources, out, options, progress, overwrite=overwrite)
    if report.done:
        rows = coverage_rows(report, names or tuple(map(str, range(num_classes))))
        print_table(f"{len(report.done)} scribbles in {out}", rows[0], rows[1:])
        draw_contact_sheet(sheet, samples(report, options), num_classes)
        say(f"Look at {sheet}. Unlabelled pixels have value {options.unlabelled_value}.")
    end_with(
        report.problems,
        f"{len(report.problems)} of {len(sources)} masks could not be scribbled; correct them, and run again with "
        "--overwrite, as the others exist now",
        some_done=bool(report.done),
    )


def coverage_rows(report: ScribblingReport, names: Sequence[str]) -> list[list[str]]:
    """A header, and a row for each class: the annotated percentage of its area, over the slices that contain it."""
    import numpy as np

    coverage = np.concatenate([item.coverage for item in report.done])
    rows = [["class", "slices", "annotated slices", "coverage % of the class", "std %"]]
    for value, name in enumerate(names):
        present = coverage[:, value][~np.isnan(coverage[:, value])]
        mean, std = (present.mean(), present.std()) if len(present) else (0.0, 0.0)
        rows.append([name, str(len(present)), str(int((present > 0).sum())), f"{mean:.1f}", f"{std:.1f}"])
    return rows


def samples(report: ScribblingReport, options: ScribbleOptions) -> list[tuple[str, Labels, Labels]]:
    """Title, mask and scribble of contact sheet tiles: the slice with the most classes of evenly spaced masks."""
    import numpy as np

    from maag.data.scribble_files import strokes_of

    tiles = []
    indices = np.unique(np.linspace(0, len(report.done) - 1, _SHEET_TILES).astype(int))
    for item in (report.done[index] for index in indices):
        plane = int((~np.isnan(item.coverage)).sum(axis=1).argmax())
        mask = item.source.read()
        strokes = strokes_of(mask, item.source.name, options)
        tiles.append((f"{item.source.name}, slice {plane}", mask[plane], strokes[plane]))
    return tiles
