"""`maag data relabel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.json_file import SPLIT_FILE
from maag.cli.models import OpenModel, open_model, read_own_split
from maag.cli.options import ANY_PATH, FOLDER, data_option, dataset_option, device_option, json_option, scribbles_option
from maag.cli.out_place import require_outside
from maag.cli.problems import end_with
from maag.cli.resolving import find_data
from maag.errors import ConfigError, names_of

if TYPE_CHECKING:
    from maag.data.splits import Split
    from maag.train.second_stage.relabel import RelabelReport


@click.command("relabel")
@click.argument("model", type=ANY_PATH)
@dataset_option
@data_option
@scribbles_option
@click.option("--out", type=FOLDER, required=True, help="Output folder; must be new or empty.")
@click.option(
    "--entropy",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Label pixels where the model's entropy, as a fraction of the maximum, is below this.",
)
@click.option(
    "--with-unlabelled",
    is_flag=True,
    help="Also label images that trained without labels (data.supervision=semi); they then count as scribbled.",
)
@click.option("--split-file", type=SPLIT_FILE, help="The split.json used in training.  [default: MODEL's own]")
@device_option
@json_option
def relabel_command(
    model: Path,
    dataset: str,
    data_dir: Path | None,
    scribbles: tuple[str, ...],
    out: Path,
    entropy: float,
    with_unlabelled: bool,
    split_file: Path | None,
    device_name: str,
    as_json: bool,
) -> None:
    """Label MODEL's training images where it is confident, for a second stage of training.

    MODEL is a run's folder, a weights file, or an exported model. --scribbles are those it was trained on; they are
    kept unchanged. A structure is labelled in its largest connected component only; all other unannotated pixels stay
    unlabelled. Validation and test patients are never labelled.

    Cases that cannot be read get no labels, and the exit code is 3.

    Pass the --out folder to `maag train --scribbles`, and its split.json to --split-file.
    """
    from maag.cli.terminal import print_json, print_table, progress_bar, say, shell_command
    from maag.data.catalog import find_cases, preset
    from maag.storage import require_empty_directory
    from maag.train.second_stage.relabel import Labeller, relabel
    from maag.train.second_stage.training_cases import choose_cases

    require_empty_directory(out)
    opened = open_model(model, device_name)
    data = opened.config.data
    if data.dataset != dataset:
        raise ConfigError(f"{model} was trained on data set {data.dataset!r}, but --dataset is {dataset!r}")
    split = _split(model, opened, split_file or opened.split_file)
    directory = find_data(dataset, data_dir)
    require_outside(out, directory, scribbles)
    training = choose_cases(find_cases(data, directory, scribbles), split, with_unlabelled=with_unlabelled)
    say(f"Running {model} with {opened.reason}")
    labeller = Labeller(model=str(model), model_digest=opened.digest, entropy=entropy)
    with progress_bar("Labelling cases") as progress:
        report = relabel(training, opened.runner, data, labeller, out, progress)
    rows = coverage_rows(report)
    print_table(f"{report.num_cases} cases of {report.num_patients} patients in {out}", rows[0], rows[1:])
    value = report.unlabelled_value
    usual = preset(dataset, "paper", directory).data.unlabelled_value
    say(f"Unlabelled pixels have value {value}.")
    words = ["--dataset", dataset, "--data", directory, "--scribbles", out, "--split-file", out / "split.json"]
    words += ["--set", "data.supervision=semi"] if training.of_cine else []
    words += [] if value == usual else ["--set", f"data.unlabelled_value={value}"]
    say(f"Next: {shell_command('train', *words)}, with settings of your choice")
    if as_json:
        print_json({"out": str(out), **report.to_dict()})
    end_with(
        report.failed.values(),
        f"{len(report.failed)} of {len(training.cases)} cases got no labels: {names_of(report.failed)}; correct them "
        "and label again into another folder, or remove them from the data before training",
        some_done=True,
    )


def coverage_rows(report: RelabelReport) -> list[list[str]]:
    """A header, and a row for each class: coverage before and after, and agreement with the masks if there are any."""
    header = ["class", "annotated %", "labelled %"]
    if report.num_cases_with_mask:
        header += ["annotated correctly %", "labelled correctly %", "annotated of mask %", "labelled of mask %"]
    rows = [header]
    for item in report.classes:
        both = (item.drawn, item.labelled)
        cells = [f"{each.percent:.2f}" for each in both]
        if report.num_cases_with_mask:
            cells += [_cell(each.correct_percent) for each in both] + [_cell(each.reached_percent) for each in both]
        rows.append([item.name, *cells])
    return rows


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _split(model: Path, opened: OpenModel, path: Path | None) -> Split:
    if path is None:
        raise ConfigError(f"{model}: no split.json belongs to this model; give that of its training with --split-file")
    if len(opened.split_digests) > 1:
        raise ConfigError(
            f"{model} averages networks that were trained on {len(opened.split_digests)} different splits, so one may "
            "have learned from validation or test patients of another; label with one run, or with runs of one split"
        )
    return read_own_split(opened, path)
