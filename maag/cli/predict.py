"""`maag predict`."""

from __future__ import annotations

from pathlib import Path

import click

from maag.cli.models import open_model
from maag.cli.options import ANY_PATH, FOLDER, device_option, json_option
from maag.errors import SomeCasesFailed


@click.command("predict")
@click.argument("inputs", type=ANY_PATH, nargs=-1, required=True, metavar="INPUT...")
@click.option("--model", type=ANY_PATH, required=True, help="A run's folder, a weights file, or an exported model.")
@click.option("--out", type=FOLDER, required=True, help="Where the labels go; the inputs' tree is mirrored.")
@click.option(
    "--backend",
    type=click.Choice(("auto", "onnx", "torch")),
    default="auto",
    show_default=True,
    help="auto runs an exported model with ONNX Runtime, anything else with PyTorch.",
)
@click.option("--resume", is_flag=True, help="Skip volumes that this model has done, by the ledger in --out.")
@device_option
@json_option
def predict_command(
    inputs: tuple[Path, ...], model: Path, out: Path, backend: str, resume: bool, device_name: str, as_json: bool
) -> None:
    """Segment NIfTI files and folders of them.

    Labels have exactly the grid of their image. One bad volume never stops the rest: it is written down in
    ledger.jsonl with the reason, and the command ends with 3.
    """
    from deploy.batch import predict
    from maag.cli.terminal import counting, print_json, say

    opened = open_model(model, device_name, backend)
    say(f"Running {model} with {opened.runner.name}")
    with counting("Segmenting volumes") as progress:
        outcome = predict(inputs, opened.runner, opened.config.data, out, opened.digest, resume, progress)
    say(
        f"{outcome.done} done, {outcome.skipped} skipped, {len(outcome.failed)} failed; "
        f"the ledger is {out / 'ledger.jsonl'}"
    )
    if as_json:
        print_json(outcome.to_dict())
    if outcome.failed:
        first = outcome.failed[0]
        raise SomeCasesFailed(f"{len(outcome.failed)} volumes failed, the rest are done; the first: {first.error}")
