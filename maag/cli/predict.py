"""`maag predict`."""

from __future__ import annotations

from pathlib import Path

import click

from maag.cli.models import open_model
from maag.cli.options import ANY_PATH, FOLDER, backend_option, device_option, json_option
from maag.errors import SomeCasesFailed


@click.command("predict")
@click.argument("inputs", type=ANY_PATH, nargs=-1, required=True, metavar="INPUT...")
@click.option("--model", type=ANY_PATH, required=True, help="A run's folder, a weights file, or an exported model.")
@click.option("--out", type=FOLDER, required=True, help="Where the labels go; the inputs' tree is mirrored.")
@backend_option
@click.option("--resume", is_flag=True, help="Skip volumes that this model has done, by the ledger in --out.")
@click.option("--flips", is_flag=True, help="Average over mirrored images too; four times the work.")
@click.option("--largest-component", is_flag=True, help="Keep the largest connected part of each structure.")
@click.option("--probabilities", is_flag=True, help="Write NAME_probabilities.nii.gz too: x, y, z, time, class.")
@click.option("--measures", is_flag=True, help="Write measures.csv: EDV, ESV, SV, EF of the ventricles, wall mass.")
@device_option
@json_option
def predict_command(
    inputs: tuple[Path, ...],
    model: Path,
    out: Path,
    backend: str,
    resume: bool,
    flips: bool,
    largest_component: bool,
    probabilities: bool,
    measures: bool,
    device_name: str,
    as_json: bool,
) -> None:
    """Segment NIfTI files, of one frame or of many, pictures, and folders of them and of DICOM series.

    INPUT may also be a pattern, or a .txt file that lists inputs.

    Labels have exactly the grid of their image. One bad volume never stops the rest: it is written down in
    ledger.jsonl with the reason, and the command ends with 3.
    """
    from deploy.batch import Work, predict
    from maag.cli.terminal import counting, print_json, say
    from maag.inference import Refinement

    work = Work(
        refinement=Refinement(flips=flips, largest_component=largest_component),
        probabilities=probabilities,
        measures=measures,
    )
    opened = open_model(model, device_name, backend)
    say(f"Running {model} with {opened.reason}")
    with counting("Segmenting volumes") as progress:
        outcome = predict(inputs, opened.runner, opened.config.data, out, opened.digest, resume, progress, work)
    say(
        f"{outcome.done} done, {outcome.skipped} skipped, {len(outcome.failed)} failed; "
        f"the ledger is {out / 'ledger.jsonl'}"
    )
    if measures:
        say(f"{outcome.patients_measured} patients measured: {out / 'measures.csv'}")
    if as_json:
        print_json(outcome.to_dict())
    if outcome.failed:
        first = outcome.failed[0]
        raise SomeCasesFailed(f"{len(outcome.failed)} volumes failed, the rest are done; the first: {first.error}")
