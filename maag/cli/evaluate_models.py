"""The models that `maag evaluate` measures: one, or those of a cross-validation, each on its own patients."""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from maag.cli.evaluate_cases import Chosen, choose_cases, warn_of_orientations
from maag.cli.models import OpenModel, open_model, warn_of_views
from maag.cli.resolving import require_same_numbers
from maag.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from maag.data.cases import Case
    from maag.data.files.volume import Volume
    from maag.evaluate.measure import Predicted, Predictor
    from maag.evaluate.report import Subject
    from maag.inference import Refinement

_EQUAL = ("classes", "channels", "modality")
"""Data settings in which the models of a common report must agree."""


class Measured(NamedTuple):
    """A model, and the cases it is measured on."""

    model: Path
    opened: OpenModel
    chosen: Chosen


def require_measurable(
    models: Sequence[Path],
    predictions: Path | None,
    *,
    refined: bool,
    changed: bool,
    out: Path | None,
    split_file: Path | None,
) -> None:
    """Raise ConfigError unless there are either models or predictions, with options that apply to them."""
    if bool(models) == (predictions is not None):
        raise ConfigError("give what to evaluate: either MODEL or --predictions DIR")
    if predictions is not None and refined:
        raise ConfigError(
            "--flips, --rotations and --largest-component need a MODEL; leave them out with --predictions"
        )
    if models and changed:
        raise ConfigError(f"--set: {models[0]} keeps the settings it was trained with; leave --set out")
    if len(models) > 1 and out is None:
        raise ConfigError(f"the common report of {len(models)} models needs a folder of its own; give --out DIR")
    if len(models) > 1 and split_file:
        raise ConfigError(
            f"--split-file: {len(models)} models are measured on the patients of their own splits; leave it out"
        )


def open_measured(
    models: Sequence[Path],
    dataset: str,
    directory: Path,
    part: str,
    split_file: Path | None,
    device_name: str,
    backend: str,
    refinement: Refinement,
) -> list[Measured]:
    """Open `models`, and choose the cases of each in that `part` of its own split, or of `split_file`.

    Raises:
        ConfigError: a model is of another data set, or numbers its classes otherwise than the data do, or two models
            have different classes or a patient in common.
        The errors of `open_model` and `choose_cases`.
    """
    from maag.cli.terminal import say

    measured = []
    for model in models:
        opened = open_model(model, device_name, backend)
        say(f"Running {model} with {opened.reason}")
        warn_of_views(model, opened.networks, refinement)
        data = opened.config.data
        if data.dataset != dataset:
            raise ConfigError(f"{model} was trained on data set {data.dataset!r}, but --dataset is {dataset!r}")
        require_same_numbers(
            str(model),
            data,
            directory,
            f"renumber its masks in the order of the model's classes, {', '.join(data.classes)}, with `maag data "
            "renumber`, and correct its list of classes",
        )
        chosen = choose_cases(directory, data, part, opened, split_file)
        warn_of_orientations(chosen.cases, opened)
        measured.append(Measured(model, opened, chosen))
    for one, other in combinations(measured, 2):
        _require_comparable(one, other, part)
    return measured


def predictor_of(measured: Sequence[Measured], refinement: Refinement) -> Predictor:
    """Predict each case with the model that is measured on it."""
    from maag.evaluate.measure import runner_predictor

    predictors: dict[str, Predictor] = {}
    for _, opened, chosen in measured:
        predictor = runner_predictor(opened.runner, opened.config.data, refinement, opened.shortfalls or {})
        predictors |= {case.case_id: predictor for case in chosen.wanted}

    def predict(case: Case, volume: Volume) -> Predicted:
        return predictors[case.case_id](case, volume)

    return predict


def subject_of(measured: Sequence[Measured], dataset: str, part: str) -> Subject:
    """The subject of a report; of several models it lists the distinct values of each."""
    from maag.evaluate.report import Subject

    opened = [each.opened for each in measured]
    splits = [each.chosen.split for each in measured]
    return Subject(
        model=", ".join(str(each.model) for each in measured),
        model_digest=_listed(each.digest for each in opened),
        runner=_listed(each.runner.name for each in opened),
        checkpoint_kind=_listed(each.kind for each in opened),
        dataset=dataset,
        split=part,
        split_digest=_listed(split.digest if split else None for split in splits),
    )


def default_out(place: Path, part: str, *, is_model: bool) -> Path:
    """Where the report of the model or of the predictions at `place` goes."""
    name = f"evaluation-{part}"
    if is_model:
        return place / name if place.is_dir() else place.with_name(f"{place.stem}-{name}")
    # The name of ".", ".." and of links is known only after resolving.
    plain = place.name not in ("", os.pardir) and not place.is_symlink()
    folder = place if plain else place.resolve()
    return folder.with_name(f"{folder.name}-{name}")


def _require_comparable(one: Measured, other: Measured, part: str) -> None:
    for name in _EQUAL:
        first, second = (getattr(each.opened.config.data, name) for each in (one, other))
        if first != second:
            raise ConfigError(
                f"data.{name} is {first} in {one.model} and {second} in {other.model}; models of a common report must "
                "agree in it, so evaluate them one by one"
            )
    common = sorted({case.patient_id for case in one.chosen.wanted} & {case.patient_id for case in other.chosen.wanted})
    if common:
        raise ConfigError(
            f"patient {common[0]} is in split {part!r} of {one.model} and of {other.model}; models of a common report "
            "are measured on different patients, such as the validation folds of data.folds: evaluate them one by one"
        )


def _listed(values: Iterable[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(value for value in values if value)) or None
