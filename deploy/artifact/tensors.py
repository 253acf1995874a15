"""What goes into an exported model and what comes out: names, types, shapes."""

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
    """A name stands for a size that is free: `batch`, `height`, `width`, `height/2`."""


def input_spec(config: Config, *, dynamic_size: bool = False) -> TensorSpec:
    """The model's input: normalised images, any number of them, of the training grid's size or of any."""
    height, width = _sides(config, 0, dynamic_size=dynamic_size)
    return TensorSpec(name=IMAGES, dtype="float32", shape=("batch", config.data.channels, height, width))


def output_specs(config: Config, *, gates: bool = False, dynamic_size: bool = False) -> tuple[TensorSpec, ...]:
    """The model's outputs: class probabilities, the label of the largest, and on request what each gate lets pass."""
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
    """The levels of the gates that have an output, in its order; none where `gates` are not asked for."""
    return tuple(sorted(config.gates.levels)) if gates else ()


def gate_name(level: int) -> str:
    """`gates_1`: the output of the gate at that level of the decoder."""
    return f"gates_{level}"


def has_dynamic_size(spec: TensorSpec) -> bool:
    """Whether the model with this input takes images of any height and width."""
    return isinstance(spec.shape[2], str)


def require_fitting(images: NDArray[np.float32], spec: TensorSpec) -> None:
    """Refuse images (N, C, H, W) that the model does not take, before it fails somewhere inside.

    Raises:
        DataError: C, H or W are not those of `spec`, or no multiples of 16 where they are free.
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
