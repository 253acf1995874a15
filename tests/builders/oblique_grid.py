"""Affine and shape of an image on an oblique grid."""

from __future__ import annotations

import numpy as np

OBLIQUE = np.array([[1.2, 0.3, 0.1, -20.0], [-0.25, 1.3, 0.2, 33.0], [0.05, -0.1, 8.0, 7.0], [0, 0, 0, 1.0]])
SHAPE = (7, 9, 3)
