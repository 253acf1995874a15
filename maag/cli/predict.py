"""`maag predict`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.models import open_model, warn_of_views
from maag.cli.options import ANY_PATH, PLACE, backend_option, device_option, json_option, wait_option
from maag.cli.predict_told import told_of, why_failed
from maag.cli.resolving import refuse_idle_wait
from maag.errors import SomeCasesFailed

if TYPE_CHECKING:
    from deploy.predicting.crew import Crew


@click.command("predict")
@click.argument("inputs", type=PLACE, nargs=-1, required=True, metavar="INPUT...")
@click.option("--model", type=ANY_PATH, required=True, help="A run's folder, a weights file, or an exported model.")
@click.option(
    "--out", type=PLACE, required=True, metavar="DIR|URI", help="Where the labels go; the inputs' tree is mirrored."
)
@backend_option
@click.option(
    "--resume",
    is_flag=True,
    help="Skip volumes that this model has done, by the ledger in --out; labels changed by hand since stay.",
)
@click.option(
    "--flips",
    is_flag=True,
    help="Average over mirrored images too, for a model trained with augment.flip; four times the work.",
)
@click.option(
    "--rotations",
    is_flag=True,
    help="Average over images turned by 15 and 30° either way too, for a model trained with augment.rotation_deg; five "
    "times the work.",
)
@click.option("--largest-component", is_flag=True, help="Keep the largest connected part of each structure.")
@click.option("--probabilities", is_flag=True, help="Write NAME_probabilities.nii.gz too: x, y, z, time, class.")
@click.option("--measures", is_flag=True, help="Write measures.csv: EDV, ESV, SV, EF of the ventricles, wall mass.")
@click.option(
    "--review",
    is_flag=True,
    help="Write review.csv: the Dice to expect of each volume's labels, without a mask, the least first.",
)
@click.option(
    "--reorient",
    is_flag=True,
    help="Reorient images like the training images, by their headers, and their labels back.",
)
@click.option("--dicom-seg", is_flag=True, help="Write the labels of a DICOM series as a DICOM Segmentation.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that share the volumes, over Ray, with a GPU each where there are any.  [default: without Ray]",
)
@click.option("--address", help="Of a running Ray cluster whose nodes reach inputs and output too; auto: the one here.")
@wait_option
@device_option
@json_option
def predict_command(
    inputs: tuple[str, ...],
    model: Path,
    out: str,
    backend: str,
    resume: bool,
    flips: bool,
    rotations: bool,
    largest_component: bool,
    probabilities: bool,
    measures: bool,
    review: bool,
    reorient: bool,
    dicom_seg: bool,
    workers: int | None,
    address: str | None,
    wait_minutes: float,
    device_name: str,
    as_json: bool,
) -> None:
    """Segment NIfTI files, of one frame or of many, pictures, folders of them and of DICOM series, and buckets.

    INPUT may also be a prefix s3://BUCKET/PREFIX (or gs, az), a pattern, or a .txt file that lists inputs.

    Labels have exactly the grid of their image. One bad volume never stops the rest: it is written down in
    ledger.jsonl with the reason, and the command ends with 3.
    """
    from deploy.predicting.batch import predict
    from deploy.predicting.job import Work
    from maag.cli.terminal import counting, print_json, say
    from maag.inference import Refinement

    work = Work(
        refinement=Refinement(flips=flips, rotations=rotations, largest_component=largest_component),
        probabilities=probabilities,
        measures=measures,
        review=review,
        reorient=reorient,
        dicom_seg=dicom_seg,
    )
    over_ray = bool(workers or address)
    refuse_idle_wait(wait_minutes, over_ray=over_ray)
    # Of a model that others run this process wants settings and digest alone, and it may well have no GPU.
    opened = open_model(model, *(("cpu", "auto") if over_ray else (device_name, backend)))
    warn_of_views(model, opened.config, work.refinement)
    if review and opened.shortfalls is None:
        say(
            f"Note: {model} does not say how far it overrates itself, as its training did not end, or an earlier maag "
            "trained it: review.csv has its own word, of which only the order is of use"
        )
    crew: Crew
    if over_ray:
        inputs = tuple(map(_from_anywhere, inputs))
        out = _from_anywhere(out)
        crew = _fleet(model, device_name, backend, workers or 1, address, wait_minutes)
        say(f"Running {model} on {workers or 1} workers over Ray")
    else:
        from deploy.predicting.crew import Threads

        crew = Threads(opened.runner)
        say(f"Running {model} with {opened.reason}")
    with counting("Segmenting volumes") as progress:
        outcome = predict(
            inputs,
            crew,
            opened.config.data,
            out,
            opened.digest,
            resume,
            progress,
            work,
            say,
            opened.shortfalls,
            opened.orientations,
        )
    for line in told_of(outcome, out.rstrip("/"), work):
        say(line)
    if as_json:
        print_json(outcome.to_dict())
    if outcome.failed:
        raise SomeCasesFailed(why_failed(outcome))


def _fleet(model: Path, device_name: str, backend: str, workers: int, address: str | None, wait_minutes: float) -> Crew:
    from deploy.predicting.fleet import Fleet, FleetPlan
    from maag.cli.shipped_model import pack
    from maag.cli.terminal import say

    gpu = {"auto": None, "cpu": False, "cuda": True}[device_name]
    plan = FleetPlan(workers=workers, address=address, gpu=gpu, wait_minutes=wait_minutes)
    return Fleet(pack(model, device_name, backend), plan, say)


def _from_anywhere(place: str) -> str:
    """The same place for a process that has another working directory."""
    from maag.storage.keys import is_uri

    return place if is_uri(place) else os.path.abspath(place)
