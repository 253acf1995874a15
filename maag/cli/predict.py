"""`maag predict`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.models import open_model, warn_of_views
from maag.cli.options import ANY_PATH, PLACE, backend_option, device_option, json_option, wait_option
from maag.cli.predict_summary import failure_message, summary_lines, uncorrected_note
from maag.cli.resolving import refuse_idle_wait
from maag.errors import SomeCasesFailed

if TYPE_CHECKING:
    from deploy.predicting.executor import Executor


@click.command("predict")
@click.argument("inputs", type=PLACE, nargs=-1, required=True, metavar="INPUT...")
@click.option("--model", type=ANY_PATH, required=True, help="A run's folder, a weights file, or an exported model.")
@click.option(
    "--out", type=PLACE, required=True, metavar="DIR|URI", help="Output; mirrors the folder structure of the inputs."
)
@backend_option
@click.option(
    "--resume",
    is_flag=True,
    help="Skip volumes that this model has segmented, by the ledger in --out; manually edited labels are kept.",
)
@click.option(
    "--flips",
    is_flag=True,
    help="Average over mirrored images, for a model trained with augment.flip; takes four times as long.",
)
@click.option(
    "--rotations",
    is_flag=True,
    help="Average over images rotated by ±15 and ±30°, for a model trained with augment.rotation_deg; takes five times "
    "as long.",
)
@click.option("--largest-component", is_flag=True, help="Keep the largest connected component of each structure.")
@click.option("--probabilities", is_flag=True, help="Also write NAME_probabilities.nii.gz: x, y, z, time, class.")
@click.option("--measures", is_flag=True, help="Write measures.csv: EDV, ESV, SV, EF of the ventricles, wall mass.")
@click.option(
    "--review",
    is_flag=True,
    help="Write review.csv: the Dice expected for each volume, estimated without a mask, lowest first.",
)
@click.option(
    "--reorient",
    is_flag=True,
    help="Reorient images like the training images, by their headers, and reorient the labels back.",
)
@click.option("--dicom-seg", is_flag=True, help="Write the labels of a DICOM series as a DICOM Segmentation.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of Ray workers, each with a GPU if the cluster has any.  [default: no Ray]",
)
@click.option(
    "--address",
    help="Address of a running Ray cluster whose nodes can reach inputs and output; auto: the cluster of this machine.",
)
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
    """Segment NIfTI files (3-D or 4-D), pictures, and folders of these or of DICOM series.

    INPUT may also be a prefix s3://BUCKET/PREFIX (or gs, az), a pattern, or a .txt file that lists inputs.

    Labels have exactly the grid of their image. A volume that fails never stops the rest: ledger.jsonl records the
    error, and the exit code is 3.
    """
    from deploy.predicting.batch import predict
    from deploy.predicting.job import Work
    from maag.cli.terminal import pluralized, print_json, progress_bar, say
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
    # With Ray, this process needs only the settings and the digest of the model, and may have no GPU.
    opened = open_model(model, *(("cpu", "auto") if over_ray else (device_name, backend)))
    warn_of_views(model, opened.networks, work.refinement)
    uncorrected = uncorrected_note(opened.config.data.classes, len(opened.networks), opened.shortfalls)
    if review and uncorrected:
        say(f"Note: {model} {uncorrected}")
    executor: Executor
    if over_ray:
        inputs = tuple(map(_absolute, inputs))
        out = _absolute(out)
        executor = _ray_workers(model, device_name, backend, workers or 1, address, wait_minutes)
        say(f"Running {model} on {pluralized(workers or 1, 'Ray worker')}")
    else:
        from deploy.predicting.executor import Threads

        executor = Threads(opened.runner)
        say(f"Running {model} with {opened.reason}")
    with progress_bar("Segmenting volumes") as progress:
        outcome = predict(
            inputs,
            executor,
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
    for line in summary_lines(outcome, out.rstrip("/"), work):
        say(line)
    if as_json:
        print_json(outcome.to_dict())
    if outcome.failed:
        raise SomeCasesFailed(failure_message(outcome))


def _ray_workers(
    model: Path, device_name: str, backend: str, workers: int, address: str | None, wait_minutes: float
) -> Executor:
    from deploy.predicting.ray_workers import RayWorkers, WorkersPlan
    from maag.cli.shipped_model import pack
    from maag.cli.terminal import say

    gpu = {"auto": None, "cpu": False, "cuda": True}[device_name]
    plan = WorkersPlan(workers=workers, address=address, gpu=gpu, wait_minutes=wait_minutes)
    return RayWorkers(pack(model, device_name, backend), plan, say)


def _absolute(path: str) -> str:
    """A URI, or an absolute path for processes with another working directory."""
    from maag.storage.keys import is_uri

    return path if is_uri(path) else os.path.abspath(path)
