"""Measures of the heart from volumes: end-diastolic and end-systolic volume, stroke volume, ejection fraction, mass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

VENTRICLES = ("LV", "RV")
MYOCARDIUM = "MYO"
_GRAMS_PER_ML = 1.05  # density of myocardium
_FEWEST_FRAMES = 2

Volumes = Mapping[str, float]
"""Millilitres by class."""
Frame = TypeVar("Frame")


def end_frames(frames: Mapping[Frame, Volumes]) -> tuple[Frame, Frame] | None:
    """End-diastole and end-systole: the frames of one heart with the largest and the smallest left ventricle.

    Frames without a left ventricle are skipped, because no heart empties completely. None if fewer than two frames show
    one, because a single frame may be either.
    """
    left = {frame: volumes[VENTRICLES[0]] for frame, volumes in frames.items() if volumes[VENTRICLES[0]] > 0}
    if len(left) < _FEWEST_FRAMES:
        return None
    return max(left, key=left.__getitem__), min(left, key=left.__getitem__)


def measure_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the measures of `measure_heart` for these classes: `LV_edv_ml`, `LV_ef_percent`, `myo_mass_g`, ..."""
    ventricles = [name for name in VENTRICLES if name in classes]
    volumes = [f"{name}_{measure}" for name in ventricles for measure in ("edv_ml", "esv_ml", "sv_ml", "ef_percent")]
    return (*volumes, *(["myo_mass_g"] if MYOCARDIUM in classes else []))


def measure_heart(full: Volumes, empty: Volumes) -> dict[str, float | None]:
    """Measures of a heart from its volumes at end-diastole (`full`) and end-systole (`empty`), by `measure_names`.

    The mass is that at end-diastole. The ejection fraction of a ventricle of 0 ml at end-diastole is None.
    """
    measured: dict[str, float | None] = {}
    for name in VENTRICLES:
        if name in full:
            stroke = full[name] - empty[name]
            measured[f"{name}_edv_ml"] = full[name]
            measured[f"{name}_esv_ml"] = empty[name]
            measured[f"{name}_sv_ml"] = stroke
            measured[f"{name}_ef_percent"] = 100 * stroke / full[name] if full[name] else None
    if MYOCARDIUM in full:
        measured["myo_mass_g"] = _GRAMS_PER_ML * full[MYOCARDIUM]
    return measured
