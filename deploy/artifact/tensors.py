"""Inputs and outputs of an exported model: names, types, shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maag.config.networks import SIZE_MULTIPLE
from maag.config.schema import Config
from maag.errors import DataError

IMAGES = "images"
PROBABILITIES = "probabilities"
LABELS = "labels"


@dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(extra="forbid"))
class TensorSpec:
    """An input or output of the model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """A string is a dynamic size: `batch`, `height`, `width`, `height/2`."""


def input_spec(config: Config, *, dynamic_size: bool = False) -> TensorSpec:
    """The model's input: a batch of normalised images, of the training grid's size or with `dynamic_size` of any."""
    height, width = _sides(config, 0, dynamic_size=dynamic_size)
    return TensorSpec(name=IMAGES, dtype="float32", shape=("batch", config.data.channels, height, width))


def output_specs(config: Config, *, gates: bool = False, dynamic_size: bool = False) -> tuple[TensorSpec, ...]:
    """The model's outputs: class probabilities, their argmax as labels, and with `gates` the attention of each gate."""
    height, width = _sides(config, 0, dynamic_size=dynamic_size)
    return (
        TensorSpec(name=PROBABILITIES, dtype="float32", shape=("batch", config.data.num_classes, height, width)),
        TensorSpec(name=LABELS, dtype="uint8", shape=("batch", height, width)),
        *(
            TensorSpec(
                name=gate_name(level),
                dtype="float32",
                shape=("batch", 1, *_sides(config, level, dynamic_size=dynamic_size)),
            )
            for level in gate_levels(config, gates=gates)
        ),
    )


def gate_levels(config: Config, *, gates: bool) -> tuple[int, ...]:
    """Levels of the gates that are outputs, in order; none without `gates`."""
    return tuple(sorted(config.gates.levels)) if gates else ()


def gate_name(level: int) -> str:
    """Output name of the gate at a level of the decoder: `gates_1`."""
    return f"gates_{level}"


def has_dynamic_size(spec: TensorSpec) -> bool:
    """Whether a model with this input accepts any height and width."""
    return isinstance(spec.shape[2], str)


def require_fitting(images: NDArray[np.float32], spec: TensorSpec) -> None:
    """Check that the model accepts images (N, C, H, W).

    Raises:
        DataError: C, H or W differ from `spec`, or dynamic ones are not multiples of 16.
    """
    found = images.shape[1:]
    if len(found) == len(spec.shape) - 1 and all(
        side % SIZE_MULTIPLE == 0 and side > 0 if isinstance(wanted, str) else side == wanted
        for side, wanted in zip(found, spec.shape[1:], strict=True)
    ):
        return
    if has_dynamic_size(spec):
        raise DataError(
            f"the exported model takes images of {spec.shape[1]} channels whose height and width are multiples of "
            f"{SIZE_MULTIPLE}, got (channels, height, width) {found}; pad them"
        )
    raise DataError(
        f"the exported model takes images of (channels, height, width) {spec.shape[1:]}, got {found}; "
        "prepare them with the data settings in its manifest"
    )


def _sides(config: Config, level: int, *, dynamic_size: bool) -> tuple[int | str, int | str]:
    scale = 2**level
    if dynamic_size:
        return ("height", "width") if level == 0 else (f"height/{scale}", f"width/{scale}")
    height, width = config.data.size_px
    return height // scale, width // scale
