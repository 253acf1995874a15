"""`maag evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.evaluate_cases import WHOLE, choose_cases, find_label_files
from maag.cli.evaluate_models import default_out, open_measured, predictor_of, require_measurable, subject_of
from maag.cli.json_file import SPLIT_FILE
from maag.cli.options import ANY_PATH, FOLDER, backend_option, data_option, dataset_option, device_option, json_option
from maag.cli.out_place import require_outside
from maag.cli.problems import end_with
from maag.cli.resolving import find_data, resolve_config
from maag.errors import names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from maag.config.data import DataConfig
    from maag.data.cases import Case
    from maag.evaluate.measure import Predictor
    from maag.evaluate.report import Report, Subject

_PICTURED = 6


@click.command("evaluate")
@click.argument("models", metavar="[MODEL]...", type=ANY_PATH, nargs=-1)
@dataset_option
@data_option
@click.option("--predictions", type=FOLDER, help="Evaluate the label files in this folder instead of a model.")
@click.option(
    "--split",
    "part",
    type=click.Choice(("val", "test", WHOLE)),
    help="Patients to evaluate.  [default: val; with --predictions and no --split-file: all]",
)
@click.option("--split-file", type=SPLIT_FILE, help="A split.json.  [default: the run's own]")
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="With --predictions: change a setting."
)
@click.option(
    "--out",
    type=FOLDER,
    help="Output folder for report.html, report.json and tables.  [default: MODEL/evaluation-SPLIT; "
    "NAME-evaluation-SPLIT next to a weights file or the folder of --predictions]",
)
@click.option("--flips", is_flag=True, help="Also evaluate with predictions averaged over mirrored images.")
@click.option(
    "--rotations", is_flag=True, help="Also evaluate with predictions averaged over images rotated by 15 and 30°."
)
@click.option(
    "--largest-component", is_flag=True, help="Also evaluate with the largest connected component of each structure."
)
@click.option(
    "--pictures",
    is_flag=True,
    help="Show slices of the six worst cases in report.html; it then holds patient images, so share it with care.",
)
@backend_option
@device_option
@json_option
def evaluate_command(
    models: tuple[Path, ...],
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
    """Evaluate MODEL at source resolution: Dice, IoU, HD, HD95 and ASSD in mm, per case and class.

    MODEL is a run's folder, a weights file, or an exported model. A class absent from both mask and prediction is
    left out of the means and counted; a class present in only one of them has Dice and IoU 0 and no distance, and is
    counted as missed or invented. Cases without a mask are left out and named in report.json, as are cases that
    cannot be read; with these the exit code is 3.

    Several models, such as those of a cross-validation (data.folds), are each measured on the patients of their own
    split, and all cases go into one report.

    Volumes are compared with those of the masks, as are cardiac measures of hearts with masks of two frames.
    report.html shows everything on one page.

    With --flips, --rotations or --largest-component the model is evaluated without and with them; the second report
    goes to a subfolder of that name.
    """
    from maag.cli.terminal import print_json
    from maag.evaluate.prediction_files import file_predictor
    from maag.evaluate.report import Subject
    from maag.inference import PLAIN, Refinement

    refinement = Refinement(flips=flips, rotations=rotations, largest_component=largest_component)
    require_measurable(
        models, predictions, refined=refinement != PLAIN, changed=bool(changes), out=out, split_file=split_file
    )
    directory = find_data(dataset, data_dir)
    require_outside(out, directory)
    predictors: dict[str, Predictor] = {}
    wanted: Sequence[Case]
    if predictions is None:
        part = part or "val"
        measured = open_measured(models, dataset, directory, part, split_file, device_name, backend, refinement)
        data = measured[0].opened.config.data
        wanted = [case for each in measured for case in each.chosen.wanted]
        num_masked = sum(len(each.chosen.cases) for each in measured)
        subject = subject_of(measured, dataset, part)
        for each in (PLAIN, refinement):
            predictors[each.name] = predictor_of(measured, each)
        folder = out or default_out(models[0], part, is_model=True)
    else:
        part = part or (WHOLE if split_file is None else "val")
        data = resolve_config(dataset, None, None, changes, directory).data
        chosen = choose_cases(directory, data, part, None, split_file)
        wanted, num_masked = chosen.wanted, len(chosen.cases)
        digest = chosen.split.digest if chosen.split else None
        subject = Subject(model=str(predictions), dataset=dataset, split=part, split_digest=digest)
        predictors[PLAIN.name] = file_predictor(find_label_files(predictions, chosen), data)
        folder = out or default_out(predictions, part, is_model=False)
    summaries, failed = _measure(predictors, wanted, data, subject, folder, pictures=pictures)
    if as_json:
        plain, *refined = summaries
        print_json({**plain, "refined": refined[0]} if refined else plain)
    end_with(
        failed.values(),
        f"{len(failed)} of {num_masked} cases could not be evaluated and are not in the means: "
        f"{names_of(failed)}; correct them, and evaluate again",
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
    """Evaluate `cases` with each of the `predictors`, and write and print the reports.

    Args:
        predictors: by `Refinement.name`, which is also the subfolder of `folder` for the report.
        cases: including those without a mask.
        data: the data settings.
        subject: of the reports, without a refinement.
        folder: output folder.
        pictures: show the worst cases on the pages.

    Returns:
        The summary of each report, and the error of each case that could not be evaluated.
    """
    from maag.cli.terminal import progress_bar
    from maag.evaluate.measure import evaluate
    from maag.evaluate.page import write_page
    from maag.evaluate.worst import WorstCases

    summaries = []
    failed: dict[str, str] = {}
    for refinement, predictor in predictors.items():
        worst = WorstCases(_PICTURED) if pictures else None
        with progress_bar(f"Evaluating cases{_with(refinement)}") as progress:
            refined = replace(subject, refinement=refinement)
            report = evaluate(cases, predictor, data, refined, progress, worst, skip_unreadable=True)
        failed |= report.failed
        target = folder / refinement
        report.write(target)
        write_page(target, report, worst.slices if worst else ())
        _show(report, target)
        summaries.append(_summary(report, target))
    return summaries, failed


def _show(report: Report, folder: Path) -> None:
    from maag.cli.terminal import print_table
    from maag.evaluate.tables import agreement_table, table

    subject = report.subject
    what = f"{subject.model}{_with(subject.refinement)}, {subject.split} ({len(report.cases)} cases)"
    rows = table(report)
    print_table(f"{what}; written to {folder}", rows[0], rows[1:])
    agreement = agreement_table(report)
    if agreement[1:]:
        print_table("Volumes and expected Dice: predicted - mask", agreement[0], agreement[1:])


def _with(refinement: str) -> str:
    return f", {refinement}" if refinement else ""


def _summary(report: Report, folder: Path) -> dict[str, object]:
    plain = report.to_dict()
    return {"out": str(folder), "subject": plain["subject"], "summary": plain["summary"]}
