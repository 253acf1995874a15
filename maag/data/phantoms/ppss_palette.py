"""Palette of PPSS's classes."""

from __future__ import annotations

from typing import Final

INDICES: Final = (0, 9, 19, 29, 39, 50, 60, 62)
"""Palette indices of the classes, background first."""
COLOURS: Final = (
    *((0, 0, 143), (0, 32, 255), (0, 191, 255), (96, 255, 159)),
    *((255, 255, 0), (255, 80, 0), (175, 0, 0), (143, 0, 0)),
)
"""The classes' colours in RGB files."""
