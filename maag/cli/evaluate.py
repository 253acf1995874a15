"""`maag evaluate`."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.json_file import SPLIT_FILE
from maag.cli.models import OpenModel, open_model, read_own_split, warn_of_views
from maag.cli.options import ANY_PATH, FOLDER, backend_option, data_option, dataset_option, device_option, json_option
from maag.cli.out_place import require_outside
from maag.cli.problems import end_with
from maag.cli.resolving import find_data, resolve_config
from maag.errors import ConfigError, DataError, StorageError, names_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from maag.data.cases import Case
    from maag.data.splits import Split
    from maag.evaluate.report import Report

_WHOLE = "all"
_PICTURED = 6


@click.command("evaluate")
@click.argument("model", type=ANY_PATH, required=False)
@dataset_option
@data_option
@click.option("--predictions", type=FOLDER, help="Measure the label files in this folder instead of a model.")
@click.option(
    "--split",
    "part",
    type=click.Choice(("val", "test", _WHOLE)),
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
    from maag.cli.terminal import counting, print_json, say
    from maag.data.catalog import find_cases
    from maag.data.files.orientation import differences
    from maag.data.notes import gathered
    from maag.evaluate.measure import by_mask, evaluate, runner_predictor
    from maag.evaluate.page import write_page
    from maag.evaluate.prediction_files import file_predictor, prediction_files
    from maag.evaluate.report import Subject
    from maag.evaluate.worst import WorstCases
    from maag.inference import PLAIN, Refinement

    refinement = Refinement(flips=flips, rotations=rotations, largest_component=largest_component)
    _require_one(model, predictions, refined=refinement != PLAIN, changed=bool(changes))
    opened = None if model is None else open_model(model, device_name, backend)
    if opened:
        say(f"Running {model} with {opened.reason}")
    if opened and model:
        warn_of_views(model, opened.config, refinement)
    directory = find_data(dataset, data_dir)
    require_outside(out, directory)
    data = opened.config.data if opened else resolve_config(dataset, None, None, changes, directory).data
    if data.dataset != dataset:
        raise ConfigError(f"{model} was trained on data set {data.dataset!r}, --dataset says {dataset!r}")
    part = part or (_WHOLE if model is None and split_file is None else "val")
    split = _split(opened, split_file, part)
    patients = None if part == _WHOLE or split is None else frozenset[str](getattr(split, part))
    # Frames of a cine have no masks to measure against, whatever they were trained as.
    found = find_cases(replace(data, cine=False), directory)
    _require_patients(patients, found, part, directory)
    wanted = [case for case in found if _is_wanted(case.patient_id, patients)]
    cases, without = by_mask(wanted, part)
    if without:
        say(
            f"Note: {len(without)} of {len(wanted)} cases of split {part!r} have no mask to measure against and are "
            f"left out, the first is {without[0].case_id}"
        )
    subject = Subject(
        model=str(model or predictions),
        model_digest=opened.digest if opened else None,
        runner=opened.runner.name if opened else None,
        checkpoint_kind=opened.kind if opened else None,
        dataset=dataset,
        split=part,
        split_digest=split.digest if split else None,
    )
    files = None if predictions is None else prediction_files(predictions, cases, found)
    if files is not None:
        notes: list[tuple[str, str]] = []
        for case in cases:
            with suppress(DataError, StorageError):  # it will be told of when it is measured
                notes += [
                    (case.case_id, note) for note in differences(files[case.case_id], case.images[0], origins=True)
                ]
        for sentence in gathered(notes):
            say(f"Note: {sentence}")
    folder = out or _default_out(model, predictions, part)
    summaries = []
    failed: dict[str, str] = {}
    for asked in (PLAIN, refinement) if refinement != PLAIN else (PLAIN,):
        predictor = runner_predictor(opened.runner, data, asked, opened.shortfalls or {}) if opened else None
        if predictor is None and files is not None:
            predictor = file_predictor(files, data)
        assert predictor is not None
        worst = WorstCases(_PICTURED) if pictures else None
        with counting(f"Measuring cases{_with(asked.name)}") as progress:
            told = replace(subject, refinement=asked.name)
            report = evaluate(wanted, predictor, data, told, progress, worst, go_on=True)
        failed |= report.failed
        target = folder / asked.name
        report.write(target)
        write_page(target, report, worst.slices if worst else ())
        _tell(report, target)
        summaries.append(_summary(report, target))
    if as_json:
        plain, *refined = summaries
        print_json({**plain, "refined": refined[0]} if refined else plain)
    end_with(
        failed.values(),
        f"{len(failed)} of {len(cases)} cases could not be measured and are in no mean: {names_of(failed)}; correct "
        "them, and measure again",
        some_done=True,
    )


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


def _split(opened: OpenModel | None, split_file: Path | None, part: str) -> Split | None:
    """The split to choose patients by; None when all are wanted."""
    if part == _WHOLE:
        return None
    path = split_file or (opened.split_file if opened else None)
    if path is None:
        raise ConfigError(
            f"--split {part}: no split.json is beside this model; name its run's with --split-file, or measure all "
            "patients, trained on or not, with --split all"
        )
    return read_own_split(opened, path, ", or use --split all")


def _require_patients(patients: frozenset[str] | None, cases: Collection[Case], part: str, directory: Path) -> None:
    absent = sorted((patients or frozenset()) - {case.patient_id for case in cases})
    if absent:
        raise DataError(
            f"{directory}: {len(absent)} of {len(patients or ())} patients of split {part!r} are not in it: "
            f"{', '.join(absent[:10])}; give the data that the split was made of, or another --split"
        )


def _is_wanted(patient: str, patients: Collection[str] | None) -> bool:
    return patients is None or patient in patients


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
