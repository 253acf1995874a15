"""`maag export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.options import ANY_PATH, FOLDER, json_option
from maag.cli.train import RUNS
from maag.errors import MissingDataError

if TYPE_CHECKING:
    from deploy.artifact import Manifest


@click.command("export")
@click.argument("run", type=ANY_PATH, required=False)
@click.option("--out", type=FOLDER, help="The exported model's folder.  [default: RUN/export]")
@json_option
def export_command(run: Path | None, out: Path | None, as_json: bool) -> None:
    """Export a run's best segmentor to ONNX, and prove that it agrees with PyTorch.

    RUN is a run's folder or a weights file; without it, the newest run under runs/ that has a best model.
    """
    from maag.cli.terminal import print_json, print_table

    model = run or newest_trained()
    folder = out or (model / "export" if model.is_dir() else model.with_name(f"{model.stem}-export"))
    manifest = export(model, folder)
    rows = [
        (parity.inputs, str(parity.num_slices), f"{parity.max_difference:.1e}", f"{100 * parity.label_agreement:.3f} %")
        for parity in manifest.parity
    ]
    print_table(f"Exported {model} to {folder}", ("parity on", "slices", "max difference", "same labels"), rows)
    if as_json:
        print_json({"out": str(folder), "files": manifest.files, "parity": [asdict(item) for item in manifest.parity]})


def newest_trained() -> Path:
    """The run under runs/ whose best model is the newest. Raises MissingDataError."""
    weights = list(RUNS.glob("*/checkpoints/best.safetensors"))
    if not weights:
        raise MissingDataError(f"{RUNS}: no trained run here to export; name one, or train one with `maag train`")
    return max(weights, key=lambda path: path.stat().st_mtime).parent.parent


def export(model: Path, folder: Path) -> Manifest:
    """Export the segmentor at `model` to `folder`."""
    from deploy.artifact import Source
    from deploy.onnx_export import export as export_segmentor
    from maag.checkpoint import load_segmentor

    trained = load_segmentor(model)
    source = Source.of(trained.path, trained.digest, trained.info)
    return export_segmentor(trained.segmentor, trained.config, folder, source)
