"""Description of the preprocessing and its inverse in `maag.data.geometry`, for users of the manifest alone."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maag.config.data import DataConfig
from maag.config.networks import SIZE_MULTIPLE
from maag.labels import BACKGROUND

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Step:
    """One operation on all slices of a volume."""

    name: str
    rule: str
    """Description in words and formulas, sufficient to implement it."""
    values: dict[str, float | str | tuple[int, ...]]
    """Its parameters."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Geometry:
    """From a volume (slices, rows, columns) to the model's input, and from its probabilities to the volume's labels."""

    spacing_mm: float
    size_px: tuple[int, int]
    """Rows and columns of the training grid, on which the normalisation's statistics are taken."""
    size_multiple: int
    """Rows and columns must be multiples of this, if dynamic."""
    to_grid: tuple[Step, ...]
    to_source: tuple[Step, ...]

    def does_as(self, other: Geometry) -> bool:
        """Whether names and values of all steps are equal; descriptions may differ."""
        return self._without_words() == other._without_words()

    def _without_words(self) -> tuple[object, ...]:
        ways = (tuple((step.name, step.values) for step in way) for way in (self.to_grid, self.to_source))
        return (self.spacing_mm, self.size_px, self.size_multiple, *ways)


def describe_geometry(data: DataConfig) -> Geometry:
    """The steps for models trained with `data`."""
    return Geometry(
        spacing_mm=data.spacing_mm,
        size_px=data.size_px,
        size_multiple=SIZE_MULTIPLE,
        to_grid=(
            Step(
                name="resize",
                rule="resize each slice to max(1, floor(n * spacing / spacing_mm + 0.0001)) rows and columns, unless "
                "it has these; cubic convolution with a, sampled at (i + 0.5) * n_in / n_out - 0.5, without "
                "anti-aliasing; edge values are repeated outside the slice",
                values={"spacing_mm": data.spacing_mm, "kernel": "cubic", "a": -0.75},
            ),
            Step(
                name="fit",
                rule="crop or pad rows and columns at the centre to size_px: floor(|have - want| / 2) of them are "
                "removed or added before, the rest after; padding repeats edge values",
                values={"size_px": data.size_px, "padding": "edge"},
            ),
            _normalization(data),
        ),
        to_source=(
            Step(
                name="fit",
                rule="crop or pad the probabilities at the centre to the rows and columns after `resize`, by the same "
                "rule; padding has probability 1 for background and 0 for all other classes",
                values={"padding": "background", "background": (BACKGROUND,)},
            ),
            Step(
                name="resize",
                rule="resize each class's probabilities to the rows and columns of the source, unless they have these; "
                "linear interpolation, sampled at (i + 0.5) * n_in / n_out - 0.5, without anti-aliasing; edge values "
                "are repeated outside the slice",
                values={"kernel": "linear"},
            ),
            Step(name="label", rule="the class with the largest probability, the first of equal ones", values={}),
        ),
    )


def _normalization(data: DataConfig) -> Step:
    if data.normalization == "unit":
        return Step(name="normalize", rule="x / 255", values={"normalization": "unit"})
    return Step(
        name="normalize",
        rule="per volume and channel, over all slices on the grid of size_px together: compute the percentiles p5, "
        "p25, p50, p75, p95 (linear interpolation), then (min(max(x, p5), p95) - p50) / width, where width is "
        "p75 - p25, or p95 - p5 if that is at least 1000 times as large; all values are 0 if p95 - p5 is at most "
        "0.00001 of the larger of |p5| and |p95|; normalise images of another size with the same five numbers",
        values={"normalization": "robust"},
    )
