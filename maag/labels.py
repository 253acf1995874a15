"""The label values that data, losses and metrics share."""

from __future__ import annotations

from typing import Final

IGNORE: Final = 255
"""Value of unlabelled pixels in every uint8 label array inside maag."""

BACKGROUND: Final = 0
"""The background class, always the first of `data.classes`."""

_PALETTE: Final = (
    (158, 158, 158),
    (30, 136, 229),
    (253, 216, 53),
    (229, 57, 53),
    (67, 160, 71),
    (142, 36, 170),
    (251, 140, 0),
    (0, 172, 193),
)


def colour_of(label: int) -> tuple[int, int, int]:
    """(R, G, B) in [0, 255] of a class in drawings and in exported models; colours repeat after eight."""
    return _PALETTE[label % len(_PALETTE)]
