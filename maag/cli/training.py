"""One training run: prepare the data, create or resume the run, and train in this process or on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from maag.cli.train_cluster import recipe_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from maag.checkpoint import TrainedSegmentor
    from maag.config.schema import Config
    from maag.data.cache.prepared import PreparedData
    from maag.data.splits import Split
    from maag.train.folder import RunFolder
    from maag.train.launch.launch import ClusterPlan
    from maag.train.outcome import Outcome


class _Shapes(NamedTuple):
    """Other patients whose masks the discriminator sees."""

    prepared: PreparedData
    patients: tuple[str, ...]
    """As a split names them."""


class _Begun(NamedTuple):
    """A run whose folder exists."""

    run: RunFolder
    split: Split
    teachers: Sequence[TrainedSegmentor]


def train(
    config: Config,
    directory: Path,
    run_path: Path,
    device: torch.device,
    *,
    scribbles: Sequence[str] = (),
    shapes: tuple[str, Path] | None = None,
    teachers: Sequence[Path] = (),
    split_file: Path | None = None,
    max_time: float | None = None,
    resume: bool = False,
    cluster: ClusterPlan | None = None,
) -> Outcome:
    """Prepare, split, and train, in this process or on a cluster, with progress on the terminal.

    `shapes` is the layout and the folder of other patients whose masks the discriminator sees; `teachers` are finished
    models, see `open_teachers`.
    """
    from maag.cli.preparing import prepare_and_report
    from maag.cli.terminal import TrainingDisplay, say
    from maag.config import codec
    from maag.storage import require_writable_place
    from maag.train.acceleration import require_fast
    from maag.train.fit import fit
    from maag.train.folder import require_no_run
    from maag.train.stopping import StopRequest, stopping_on_signals

    if not cluster:
        require_fast(config.train, device)
    if not resume:
        require_no_run(run_path)
    require_writable_place(run_path)
    prepared = prepare_and_report(directory, config.data, scribbles)
    others = _prepare_shapes(*shapes, config, prepared) if shapes else None
    if resume:
        run, split, opened = _open(run_path, config, prepared, others, teachers)
    else:
        run, split, opened = _create(run_path, config, prepared, others, teachers, split_file)
    stop = StopRequest(max_time)
    place = "Ray" if cluster else str(device)
    with TrainingDisplay(run.path, config, split, codec.digest(config), place) as display, stopping_on_signals(stop):
        if cluster:
            from maag.train.launch.launch import launch

            models = [teacher.path for teacher in opened]
            recipe = recipe_of(config, split, directory, scribbles, shapes, max_time, models)
            outcome = launch(recipe, cluster, run, listener=display, notify=say, stop=stop, resume=resume)
        else:
            outcome = fit(
                config,
                prepared,
                split,
                run,
                device=device,
                listener=display,
                stop=stop,
                resume=resume,
                shapes=others.prepared if others else None,
                teachers=opened,
                teacher_progress=display.on_soft_labels,
            )
    display.show_outcome(outcome)
    return outcome


def _prepare_shapes(layout: str, folder: Path, config: Config, images: PreparedData) -> _Shapes:
    from maag.cli.preparing import prepare_shapes_and_report

    prepared = prepare_shapes_and_report(layout, folder, config.data, images)
    return _Shapes(prepared, tuple(f"{folder.resolve().name}/{patient}" for patient in prepared.patient_ids))


def _open(
    run_path: Path, config: Config, prepared: PreparedData, others: _Shapes | None, teachers: Sequence[Path]
) -> _Begun:
    """The run to resume, with its own teachers unless `teachers` are given."""
    from maag.config import codec
    from maag.data.slices.shapes import require_other_patients
    from maag.storage import write_json
    from maag.train.folder import open_run, read_split
    from maag.train.second_stage.teachers import open_teachers, read_teachers

    run, before = open_run(run_path)
    if config != before:
        # A new number of epochs also holds for the next resume.
        write_json(run.config, codec.document(config))
    split = read_split(run.split, _patients(prepared, others))
    opened = open_teachers(teachers or read_teachers(run.teachers), config, split)
    if others:
        require_other_patients(prepared, split, others.prepared)
    return _Begun(run, split, opened)


def _create(
    run_path: Path,
    config: Config,
    prepared: PreparedData,
    others: _Shapes | None,
    teachers: Sequence[Path],
    split_file: Path | None,
) -> _Begun:
    """Create a new run after all checks have passed."""
    from maag.cli.terminal import say
    from maag.data.catalog import reader_of
    from maag.data.slices.shapes import require_other_patients
    from maag.data.slices.supervision import ineffective_settings, supervise
    from maag.data.split_making import make_split
    from maag.train.folder import create_run, read_split
    from maag.train.second_stage.teachers import open_teachers

    if split_file:
        split = read_split(split_file, _patients(prepared, others))
    else:
        published = reader_of(config.data.dataset).split0
        split = make_split(prepared.patients, config.data, published, others.patients if others else ())
    if others:
        require_other_patients(prepared, split, others.prepared)
    supervise(prepared, split, config, others.prepared if others else None)
    opened = open_teachers(teachers, config, split)
    for note in ineffective_settings(config, split, prepared.raters):
        say(f"Note: {note}")
    return _Begun(create_run(run_path, config, split, opened), split, opened)


def _patients(prepared: PreparedData, others: _Shapes | None) -> list[str]:
    return [*prepared.patient_ids, *(others.patients if others else ())]
