"""`maag evaluate`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.evaluate_cases import WHOLE, choose_cases, find_label_files, warn_of_orientations
from maag.cli.json_file import SPLIT_FILE
from maag.cli.models import open_model, warn_of_views
from maag.cli.options import ANY_PATH, FOLDER, backend_option, data_option, dataset_option, device_option, json_option
from maag.cli.out_place import require_outside
from maag.cli.problems import end_with
from maag.cli.resolving import find_data, resolve_config
from maag.errors import ConfigError, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from maag.config.data import DataConfig
    from maag.data.cases import Case
    from maag.evaluate.measure import Predictor
    from maag.evaluate.report import Report, Subject

_PICTURED = 6


@click.command("evaluate")
@click.argument("model", type=ANY_PATH, required=False)
@dataset_option
@data_option
@click.option("--predictions", type=FOLDER, help="Measure the label files in this folder instead of a model.")
@click.option(
    "--split",
    "part",
    type=click.Choice(("val", "test", WHOLE)),
    help="Which patients.  [default: val; with --predictions and no --split-file: all]",
)
@click.option("--split-file", type=SPLIT_FILE, help="A split.json.  [default: the run's own]")
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="With --predictions: change a setting."
)
@click.option(
    "--out",
    type=FOLDER,
    help="Where report.html, report.json and tables go.  [default: MODEL/evaluation-SPLIT; NAME-evaluation-SPLIT "
    "beside a weights file or the folder of --predictions]",
)
@click.option("--flips", is_flag=True, help="Measure the average over mirrored images too.")
@click.option("--rotations", is_flag=True, help="Measure the average over images turned by 15 and 30° too.")
@click.option("--largest-component", is_flag=True, help="Measure the largest part of each structure too.")
@click.option(
    "--pictures",
    is_flag=True,
    help="Show slices of the six worst cases in report.html; they are of patients, so mind who gets the file.",
)
@backend_option
@device_option
@json_option
def evaluate_command(
    model: Path | None,
    dataset: str,
    data_dir: Path | None,
    predictions: Path | None,
    part: str | None,
    split_file: Path | None,
    changes: tuple[str, ...],
    out: Path | None,
    flips: bool,
    rotations: bool,
    largest_component: bool,
    pictures: bool,
    backend: str,
    device_name: str,
    as_json: bool,
) -> None:
    """Measure MODEL at source resolution: Dice, IoU, HD, HD95, ASSD in mm, per case and class.

    MODEL is a run's folder, a weights file of one, or an exported model. A class that stands in neither mask nor
    prediction is left out of the means and counted; one that stands in only one of them has Dice and IoU 0 and no
    distance, and is counted as missed or invented. Cases without a mask are left out and named in report.json, as are
    those that cannot be read, with which the command ends with 3.
    Volumes, and measures of hearts of which two frames have masks, are compared with the masks'. report.html shows it
    all on one page.

    With --flips, --rotations or --largest-component the model is measured without them and with them; the second report
    goes into a folder of that name below the first.
    """
    from maag.cli.terminal import print_json, say
    from maag.evaluate.measure import runner_predictor
    from maag.evaluate.prediction_files import file_predictor
    from maag.evaluate.report import Subject
    from maag.inference import PLAIN, Refinement

    refinement = Refinement(flips=flips, rotations=rotations, largest_component=largest_component)
    _require_one(model, predictions, refined=refinement != PLAIN, changed=bool(changes))
    opened = None if model is None else open_model(model, device_name, backend)
    if opened and model:
        say(f"Running {model} with {opened.reason}")
        warn_of_views(model, opened.config, refinement)
    directory = find_data(dataset, data_dir)
    require_outside(out, directory)
    data = opened.config.data if opened else resolve_config(dataset, None, None, changes, directory).data
    if data.dataset != dataset:
        raise ConfigError(f"{model} was trained on data set {data.dataset!r}, --dataset says {dataset!r}")
    part = part or (WHOLE if model is None and split_file is None else "val")
    chosen = choose_cases(directory, data, part, opened, split_file)
    subject = Subject(
        model=str(model or predictions),
        model_digest=opened.digest if opened else None,
        runner=opened.runner.name if opened else None,
        checkpoint_kind=opened.kind if opened else None,
        dataset=dataset,
        split=part,
        split_digest=chosen.split.digest if chosen.split else None,
    )
    predictors: dict[str, Predictor] = {}
    if opened:
        warn_of_orientations(chosen.cases, opened)
        for asked in (PLAIN, refinement):
            predictors[asked.name] = runner_predictor(opened.runner, data, asked, opened.shortfalls or {})
    elif predictions:
        predictors[PLAIN.name] = file_predictor(find_label_files(predictions, chosen), data)
    folder = out or _default_out(model, predictions, part)
    summaries, failed = _measure(predictors, chosen.wanted, data, subject, folder, pictures=pictures)
    if as_json:
        plain, *refined = summaries
        print_json({**plain, "refined": refined[0]} if refined else plain)
    end_with(
        failed.values(),
        f"{len(failed)} of {len(chosen.cases)} cases could not be measured and are in no mean: {names_of(failed)}; "
        "correct them, and measure again",
        some_done=True,
    )


def _measure(
    predictors: Mapping[str, Predictor],
    cases: Sequence[Case],
    data: DataConfig,
    subject: Subject,
    folder: Path,
    *,
    pictures: bool,
) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Measure `cases` with each of the `predictors`, and write and tell what comes out.

    Args:
        predictors: by what they refine, as `Refinement.name` has it; the reports go to `folder` and such a name below.
        cases: with those that have no mask.
        data: the data settings.
        subject: of the reports, without a refinement.
        folder: where they go.
        pictures: show the worst cases on their pages.

    Returns:
        The summary of each report, and the cases that could not be measured, each with why.
    """
    from maag.cli.terminal import counting
    from maag.evaluate.measure import evaluate
    from maag.evaluate.page import write_page
    from maag.evaluate.worst import WorstCases

    summaries = []
    failed: dict[str, str] = {}
    for refinement, predictor in predictors.items():
        worst = WorstCases(_PICTURED) if pictures else None
        with counting(f"Measuring cases{_with(refinement)}") as progress:
            told = replace(subject, refinement=refinement)
            report = evaluate(cases, predictor, data, told, progress, worst, go_on=True)
        failed |= report.failed
        target = folder / refinement
        report.write(target)
        write_page(target, report, worst.slices if worst else ())
        _tell(report, target)
        summaries.append(_summary(report, target))
    return summaries, failed


def _require_one(model: Path | None, predictions: Path | None, *, refined: bool, changed: bool) -> None:
    """Raises ConfigError where it is not said which of the two is to be measured, or more than one of them can."""
    if (model is None) == (predictions is None):
        raise ConfigError("give either MODEL or --predictions DIR: what is to be measured")
    if model is None and refined:
        raise ConfigError(
            "--flips, --rotations and --largest-component are what a MODEL does; leave them out with --predictions"
        )
    if model is not None and changed:
        raise ConfigError(f"--set: {model} keeps the settings that it was trained with; leave --set out")


def _tell(report: Report, folder: Path) -> None:
    from maag.cli.terminal import print_table
    from maag.evaluate.tables import agreement_table, table

    subject = report.subject
    what = f"{subject.model}{_with(subject.refinement)}, {subject.split} ({len(report.cases)} cases)"
    rows = table(report)
    print_table(f"{what}; written to {folder}", rows[0], rows[1:])
    agreement = agreement_table(report)
    if agreement[1:]:
        print_table("Volumes, and Dice that was expected: predicted - mask", agreement[0], agreement[1:])


def _with(refinement: str) -> str:
    return f", {refinement}" if refinement else ""


def _default_out(model: Path | None, predictions: Path | None, part: str) -> Path:
    name = f"evaluation-{part}"
    if predictions is not None:
        # Of "." and ".." it takes the whole path to know the name, and of links.
        plain = predictions.name not in ("", os.pardir) and not predictions.is_symlink()
        whole = predictions if plain else predictions.resolve()
        return whole.with_name(f"{whole.name}-{name}")
    assert model is not None
    return model / name if model.is_dir() else model.with_name(f"{model.stem}-{name}")


def _summary(report: Report, folder: Path) -> dict[str, object]:
    plain = report.to_dict()
    return {"out": str(folder), "subject": plain["subject"], "summary": plain["summary"]}
