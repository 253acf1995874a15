"""`maag data`: look at a data set, or make a synthetic one."""

from __future__ import annotations

from pathlib import Path

import click

from maag.cli.options import (
    FOLDER,
    config_options,
    data_option,
    dataset_option,
    find_data,
    json_option,
    resolve_config,
    scribbles_option,
)


@click.group("data")
def data_group() -> None:
    """Check a data set, or make a synthetic one."""


@data_group.command("check")
@dataset_option
@data_option
@scribbles_option
@config_options
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
    """Read everything, count cases, classes and scribbles, and list every problem; exit 1 if a case is unusable."""
    from maag.cli.terminal import counting, print_json, print_table, say
    from maag.data.check import check

    directory = find_data(dataset, data_dir)
    config = resolve_config(dataset, preset, config_file, changes, directory)
    with counting("Checking cases") as progress:
        report = check(directory, config.data, scribbles, progress)
    print_table(f"{report.directory}", ("", "count"), [(name, str(count)) for name, count in report.counts.items()])
    header = ("class", "cases with it", "slices scribbled", "coverage %", "std %")
    rows = [
        (
            item.name,
            str(item.cases_in_masks),
            str(item.slices_scribbled),
            f"{item.coverage_mean:.2f}",
            f"{item.coverage_std:.2f}",
        )
        for item in report.classes
    ]
    print_table("Classes", header, rows)
    for what, ranges in (("Spacing in mm", report.spacing_mm), ("Shape", report.shape)):
        parts = (
            f"{axis} {low:g}" if low == high else f"{axis} {low:g} to {high:g}" for axis, (low, high) in ranges.items()
        )
        say(f"{what}: {', '.join(parts)}.")
    for note in report.notes:
        say(f"Note: {note}")
    for problem in report.problems:
        say(f"Problem: {problem}")
    say(f"{len(report.problems)} problems, {len(report.notes)} notes.")
    if as_json:
        print_json(report.to_dict())
    return 1 if report.problems else 0


@data_group.command("phantom")
@dataset_option
@click.option("--out", type=FOLDER, required=True, help="Where to; must be new or empty.")
@click.option("--cases", type=click.IntRange(min=4), default=20, show_default=True, help="Number of patients.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
def data_phantom_command(dataset: str, out: Path, cases: int, seed: int) -> None:
    """Write synthetic patients in a data set's own layout: images, masks and scribbles."""
    from maag.cli.terminal import say
    from maag.data.catalog import write_phantom

    write_phantom(dataset, out, cases, seed)
    say(f"{cases} synthetic patients in {out}; look at them with: maag data check --dataset {dataset} --data {out}")
