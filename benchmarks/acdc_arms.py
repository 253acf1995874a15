"""The settings that `acdc_best.py` compares on real ACDC: whole methods, and parts of the best one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maag.config.presets import BEYOND_SMALL

BASELINE = "fast preset"
BEST = "best settings"
SECOND_STAGE = f"{BEST}, second stage"
STUDENT_STAGE = f"{BEST}, student of a first run"
BEST_LONGER = f"{BEST}, epochs of both stages"
WITHOUT_TEACHER = {"teacher.decay": 0, "loss.teacher": 0}
WITHOUT_SHAPES = {"gates.levels": [], "loss.adversarial": 0}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "without the teacher": WITHOUT_TEACHER,
    "averaged weights alone, without soft labels": {"loss.teacher": 0},
    "without gates and discriminator": WITHOUT_SHAPES,
    "without gate supervision": {"teacher.gates": 0},
    "residual gates, but for the finest level": {"gates.levels": [1, 2, 3], "gates.residual": True},
    "adversarial weight 0.4": {"loss.adversarial": 0.4},
    "with class weights": {"loss.class_weights": 1.0},
    "with the roots of class weights": {"loss.class_weights": 0.5},
    "without elastic and gamma": {"augment.elastic": 0, "augment.gamma": 0},
    "batches of 12, rate 2e-3": {"optim.batch_size": 12, "optim.lr": 2e-3},
    "with a prior of areas": {"loss.areas": 0.3},
    "with cubic interpolation": {"augment.interpolation": "cubic"},
    "with cutout": {"augment.cutout": 0.3},
    "with a residual encoder": {"segmentor.residual_blocks": [1, 2, 2, 2]},
    "decay 0.999": {"teacher.decay": 0.999},
    "without class offsets": {"train.class_offsets": False},
    "teacher of slices as they are": {"teacher.rotation_deg": 0},
    "wider augmentation": {
        "augment.elastic": 0.03,
        "augment.scale": 0.25,
        "augment.gamma": 0.5,
        "augment.brightness": 0.2,
        "augment.contrast": 0.25,
        "augment.noise": 0.1,
    },
}
SETTINGS: Mapping[str, Any] = {**BEYOND_SMALL, "loss.class_weights": 0.0, "teacher.gates": 0.5}
"""Settings of the best-fast preset on ACDC that differ from the fast preset."""
METHODS: Mapping[str, Mapping[str, Any]] = {
    BASELINE: {},
    BEST: SETTINGS,
    "partial cross-entropy": WITHOUT_SHAPES,
    "partial cross-entropy, best recipe": {**SETTINGS, **WITHOUT_SHAPES, **WITHOUT_TEACHER},
    "dense masks, best recipe": {**SETTINGS, "data.supervision": "dense", "loss.adversarial": 0},
}
PARTS: Mapping[str, Mapping[str, Any]] = {
    **{f"{BEST}, {change}": {**SETTINGS, **settings} for change, settings in CHANGES.items()},
    SECOND_STAGE: SETTINGS,
    STUDENT_STAGE: SETTINGS,
    BEST_LONGER: SETTINGS,
}
ARMS = {**METHODS, **PARTS}
FIRST_STAGE: Mapping[str, str] = {SECOND_STAGE: BEST, STUDENT_STAGE: BEST}
"""By second-stage arm, the arm whose final model gives the labels or is the teacher."""
ANOTHER_SEED = 100
"""Added to a student's seed, so that it does not start from the initial weights of its teacher."""
TIMES_LONGER: Mapping[str, int] = {BEST_LONGER: 2}
"""By arm, the factor on the number of epochs."""
