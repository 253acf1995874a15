"""`maag export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maag.cli.options import ANY_PATH, FOLDER, json_option
from maag.cli.out_place import require_outside
from maag.cli.resolving import find_data
from maag.cli.runs import RUNS, newest_trained
from maag.errors import ConfigError, ExportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from deploy.artifact.engine import Precision
    from deploy.artifact.manifest import Manifest
    from deploy.exporting.onnx_export import EngineOrder
    from maag.config.schema import Config

_SLICES_MEASURED = 32


@click.command("export")
@click.argument("runs", type=ANY_PATH, nargs=-1, metavar="[RUN]...")
@click.option("--out", type=FOLDER, help="Output folder.  [default: RUN/export; required for several RUNs]")
@click.option(
    "--precision",
    type=click.Choice(("fp32", "fp16", "int8")),
    default="fp32",
    show_default=True,
    help="Precision of the graph; int8 is calibrated on training slices.",
)
@click.option(
    "--data", "data_dir", type=FOLDER, help="Folder of the data set, to measure parity on its slices too and for int8."
)
@click.option("--trt", is_flag=True, help="Also build a TensorRT engine for the GPU of this machine.")
@click.option("--gates", is_flag=True, help="Add an output for each attention gate: gates_0, gates_1, …")
@click.option("--dynamic-size", is_flag=True, help="Accept any height and width that are multiples of 16.")
@click.option("--triton", is_flag=True, help="Also write a model repository for Triton Inference Server.")
@click.option(
    "--fall-back", is_flag=True, help="Export fp32 if the precision differs too much from PyTorch, instead of failing."
)
@json_option
def export_command(
    runs: tuple[Path, ...],
    out: Path | None,
    precision: Precision,
    data_dir: Path | None,
    trt: bool,
    gates: bool,
    dynamic_size: bool,
    triton: bool,
    fall_back: bool,
    as_json: bool,
) -> None:
    """Export a run's best segmentor to ONNX, and check that it agrees with PyTorch.

    RUN is a run's folder or a weights file; by default the run or search anywhere below runs/ with the newest best
    model. Several RUNs, such as the folds of a cross-validation, become one model that averages their class
    probabilities and takes as long as all of them together.

    The output folder also holds a model card, and a script that segments with NumPy and ONNX Runtime alone.

    With --trt, if TensorRT or a GPU is missing, the ONNX model is written nevertheless, and the command reports what
    is missing and exits with 1.
    """
    from maag.cli.terminal import print_json, say

    models = runs
    if not runs:
        newest, kind = newest_trained()
        models = (newest,)
        say(f"Exporting {newest}, the {kind} below {RUNS} with the newest best model")
    folder = out or _default_folder(models)
    engine, missing = _engine_order() if trt else (None, None)
    if engine:
        say("Building a TensorRT engine, which takes minutes the first time")
    manifest = export(
        models,
        folder,
        precision,
        data_dir,
        fall_back=fall_back,
        gates=gates,
        dynamic_size=dynamic_size,
        engine=engine,
    )
    if triton:
        from deploy.exporting.triton import write_repository

        say(f"The Triton model repository is {write_repository(folder, manifest)}")
    _show(models, folder, manifest)
    if as_json:
        facts = {
            "precision": manifest.precision,
            "engine": manifest.engine.file if manifest.engine else None,
            "parity": [asdict(item) for item in manifest.parity],
        }
        print_json({"out": str(folder), "files": manifest.files, **facts})
    if missing:
        raise ExportError(f"no engine was built, {folder} holds only the ONNX model: {missing}")


def _default_folder(models: Sequence[Path]) -> Path:
    if len(models) > 1:
        raise ConfigError(f"the average of {len(models)} runs belongs in no run's folder; name one for it with --out")
    (model,) = models
    return model / "export" if model.is_dir() else model.with_name(f"{model.stem}-export")


def _engine_order() -> tuple[EngineOrder | None, str | None]:
    """An order for an engine on this machine's GPU, or what is missing for one."""
    from deploy.exporting.onnx_export import EngineOrder
    from deploy.runners.engine_cache import engines_directory
    from deploy.runners.trt_presence import look_for_tensorrt, open_tensorrt

    presence = look_for_tensorrt()
    if presence.missing:
        return None, presence.sentence
    return EngineOrder(tensorrt=open_tensorrt(), timing_caches=engines_directory()), None


def _show(models: Sequence[Path], folder: Path, manifest: Manifest) -> None:
    from deploy.exporting.activations import LARGEST_HALF, NEAR_LARGEST_HALF
    from deploy.runners.parity import weakness
    from maag.cli.terminal import print_table, say

    rows = [
        (
            parity.inputs,
            parity.candidate,
            str(parity.num_slices),
            f"{parity.max_difference:.1e}",
            f"{100 * parity.label_agreement:.3f} %",
            "-" if parity.dice is None else f"{parity.dice:.4f}",
        )
        for parity in manifest.parity
    ]
    header = ("parity on", "runner", "slices", "max difference", "same labels", "Dice")
    if manifest.fell_back_from:
        say(f"{manifest.fell_back_from} differed too much from PyTorch; exported fp32 instead")
    largest = manifest.largest_activation
    if largest is not None and largest > NEAR_LARGEST_HALF:
        say(
            f"Warning: activations reach {largest:g}, and the maximum of fp16 is {LARGEST_HALF:g}: other images may be "
            "labelled wrongly; check with `maag evaluate`, or export with --precision fp32"
        )
    what = models[0] if len(models) == 1 else f"the average of {len(models)} networks"
    print_table(f"Exported {what} to {folder} in {manifest.precision}", header, rows)
    if weak := weakness(manifest.parity):
        say(f"Warning: {weak}")
    if manifest.engine:
        say(f"The TensorRT engine is {folder / manifest.engine.file}")


def export(
    models: Sequence[Path],
    folder: Path,
    precision: Precision = "fp32",
    data_dir: Path | None = None,
    *,
    fall_back: bool = False,
    gates: bool = False,
    dynamic_size: bool = False,
    engine: EngineOrder | None = None,
) -> Manifest:
    """Export the segmentor at the only path in `models`, or the average of those at several, to `folder`.

    Slices of the data set are chosen by the split of the first; see `deploy.exporting.onnx_export.export`.
    """
    from deploy.artifact.manifest import Source
    from deploy.exporting.ensembles import average_of
    from deploy.exporting.onnx_export import export as export_segmentor
    from maag.checkpoint import load_segmentor
    from maag.cli.models import parent_of

    if gates and len(models) > 1:
        raise ConfigError("--gates: the average of several networks has no gates of its own; leave it out")
    trained, *others = (load_segmentor(model) for model in models)
    if gates and not trained.config.gates.levels:
        raise ConfigError(
            f"--gates: {models[0]} was trained without attention gates (gates.levels is empty); leave it out"
        )
    segmentor: nn.Module = trained.segmentor
    source = Source.of(trained.path, trained.digest, trained.info)
    if others:
        segmentor, source = average_of((trained, *others))
    samples = calibration = None
    if data_dir or precision == "int8":
        directory = find_data(trained.config.data.dataset, data_dir)
        if not any(model in folder.parents for model in models):
            require_outside(folder, directory)
        samples, calibration = _slices(parent_of(parent_of(trained.path)) / "split.json", trained.config, directory)
    return export_segmentor(
        segmentor,
        trained.config,
        folder,
        source,
        samples,
        precision=precision,
        calibration=calibration,
        fall_back=fall_back,
        gates=gates,
        dynamic_size=dynamic_size,
        engine=engine,
    )


def _slices(
    split_file: Path, config: Config, directory: Path
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Slices of validation patients to measure parity on, and slices of training patients for calibration."""
    from deploy.exporting.precision import calibration_slices
    from maag.cli.preparing import prepare_and_report
    from maag.data.catalog import reader_of
    from maag.data.split_making import make_split
    from maag.train.folder import read_split

    prepared = prepare_and_report(directory, config.data)
    if split_file.is_file():
        # Those of `--shapes` are in another folder.
        split = read_split(split_file, prepared.patient_ids, unused=("shapes", "test"))
    else:
        split = make_split(prepared.patients, config.data, reader_of(config.data.dataset).split0)
    validation = prepared.slices_of(split.val)
    training = prepared.slices_of({*split.scribbled, *split.dense, *split.unlabelled})
    images, labels = prepared.images[training], prepared.annotated_labels(training)
    sample = validation[:: max(1, len(validation) // _SLICES_MEASURED)]
    return {"validation": prepared.images[sample]}, images[calibration_slices(images, labels, config.data.num_classes)]
