"""Untrained segmentors and their ONNX graphs, each converted once per process, as that takes seconds."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import torch

from deploy.artifact.manifest import Source
from deploy.exporting.graph import onnx_from_segmentor
from deploy.exporting.precision import to_fp16, to_int8
from maag.config.codec import override
from maag.data.catalog import preset
from maag.models.build import build_segmentor
from maag.models.ensemble import Ensemble
from maag.models.segmentor import Segmentor

CONFIG = override(preset("acdc", "fast"), {"data.size_px": [48, 32], "data.spacing_mm": 2.0, "segmentor.width": 4})
"""With gates at all levels."""
CONFIGS = {"plain": CONFIG, "residual": override(CONFIG, {"segmentor.residual_blocks": [1, 2, 0, 2]})}
"""By encoder."""
ENSEMBLE = "ensemble"
"""The average of both."""
SOURCE = Source(checkpoint="best.safetensors", sha256="00")


@cache
def segmentor(encoder: str) -> Segmentor:
    """In training mode; its weights and buffers are not to be changed."""
    torch.manual_seed(0)
    made = build_segmentor(CONFIGS[encoder])
    for _ in range(20):  # Statistics of batch normalisation that differ from the initial ones.
        made(torch.randn(4, 1, 48, 32))
    return made


@cache
def graph(precision: str, gates: bool, dynamic_size: bool, kind: str) -> onnx.ModelProto:
    """The graph of an encoder or of ENSEMBLE; not to be changed."""
    if precision == "fp32":
        networks = [segmentor(encoder) for encoder in CONFIGS]
        network = Ensemble(networks) if kind == ENSEMBLE else segmentor(kind)
        return onnx_from_segmentor(network, CONFIGS.get(kind, CONFIG), gates=gates, dynamic_size=dynamic_size)
    whole = graph("fp32", gates, dynamic_size, kind)
    if precision == "fp16":
        return to_fp16(whole)
    calibration = np.random.default_rng(2).normal(size=(4, 1, 48, 32)).astype(np.float32)
    return to_int8(whole, calibration, CONFIG.data.num_classes)
