"""`maag demo`: every stage once, on synthetic patients, in a few minutes."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path

import click

from maag.cli.options import FOLDER

_PATIENTS = 20
_EPOCHS = 28
_BATCH_SIZE = 4  # small, for enough steps with few patients


@click.command("demo")
@click.option("--out", type=FOLDER, help="A new folder for all output.  [default: runs/demo-TIME]")
@click.option("--epochs", type=click.IntRange(min=1), default=_EPOCHS, show_default=True, help="Epochs of training.")
def demo_command(out: Path | None, epochs: int) -> None:
    """Create synthetic patients, train on their scribbles, export, segment a folder, and evaluate.

    Takes a few minutes on two CPU cores. The data are synthetic, so the scores only show that everything works.
    """
    from deploy.predicting.batch import predict
    from deploy.predicting.executor import Threads
    from maag.cli.export import export
    from maag.cli.models import open_model
    from maag.cli.picture import draw_result
    from maag.cli.resolving import pick_device, resolve_config
    from maag.cli.runs import DEMO, DEMO_RUN, RUNS
    from maag.cli.terminal import print_table, progress_bar, say
    from maag.cli.training import train
    from maag.data.catalog import find_cases, write_phantom
    from maag.data.splits import Split
    from maag.evaluate.measure import evaluate
    from maag.evaluate.page import write_page
    from maag.evaluate.prediction_files import file_predictor, prediction_files
    from maag.evaluate.report import Subject
    from maag.evaluate.tables import table
    from maag.evaluate.worst import WorstCases
    from maag.storage import read_json

    out = out or RUNS / f"{DEMO}{datetime.now():%Y%m%d-%H%M%S}"
    data_dir, run_path, exported, predicted = out / "data", out / DEMO_RUN, out / "model", out / "predictions"
    write_phantom("acdc", data_dir, _PATIENTS, seed=0)
    say(f"1. {_PATIENTS} synthetic patients in {data_dir}")
    config = resolve_config("acdc", "fast", None, (f"optim.epochs={epochs}", f"optim.batch_size={_BATCH_SIZE}"))
    say("2. Training on their scribbles")
    outcome = train(config, data_dir, run_path, pick_device("auto"))
    if outcome.ending == "interrupted":
        raise click.Abort
    say(f"3. Exporting the best segmentor to ONNX in {exported}")
    export((run_path,), exported)

    say(f"4. Segmenting the held-out test patients with the exported model, into {predicted}")
    opened = open_model(exported, "auto")
    cases = find_cases(config.data, data_dir)
    split = Split.from_dict(read_json(run_path / "split.json"))
    held_out = [case for case in cases if case.patient_id in split.test]
    with progress_bar("Segmenting volumes") as progress:
        predict(
            [case.images[0] for case in held_out],
            Threads(opened.runner),
            config.data,
            predicted,
            opened.digest,
            progress=progress,
        )

    subject = Subject(
        model=str(exported), dataset="acdc", split="test", split_digest=split.digest, model_digest=opened.digest
    )
    worst = WorstCases(len(held_out))
    report = evaluate(
        held_out,
        file_predictor(prediction_files(predicted, held_out), config.data),
        config.data,
        subject,
        watch=worst,
    )
    report.write(out / "evaluation")
    write_page(out / "evaluation", report, worst.slices)
    rows = table(report)
    print_table("5. Evaluation at source resolution", rows[0], rows[1:])
    draw_result(out / "result.png", held_out[0], predicted, config.data)
    say(
        f"Look at {out / 'result.png'} first. Then: {run_path} (config, curves, checkpoints; "
        f"tensorboard --logdir {shlex.quote(str(run_path))}), {exported} (model.onnx and its manifest), {predicted} "
        f"(label maps and the ledger), {out / 'evaluation'} (report.html and tables)."
    )
