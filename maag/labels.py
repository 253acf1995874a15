"""The label values that data, losses and metrics share."""

from __future__ import annotations

from typing import Final

IGNORE: Final = 255
"""Pixel without a label, in every label array inside maag: uint8."""

BACKGROUND: Final = 0
"""The background class, always the first of `data.classes`."""
