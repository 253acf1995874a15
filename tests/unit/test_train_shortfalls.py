"""How far a model overrates itself is told by what is known of the cases that validate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from maag import checkpoint
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.labels import IGNORE
from maag.models.build import build_segmentor
from maag.train.shortfalls import note_shortfalls


def test_labels_where_the_mask_says_nothing_tell_nothing(
    tiny_config: Config, prepared: PreparedData, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "best.safetensors"
    checkpoint.save_segmentor(path, tiny_config, build_segmentor(tiny_config).state_dict(), {})
    first, *others = prepared.cases
    masks = np.array(prepared.masks)
    masks[first.start : first.stop] = IGNORE
    found = []
    for data in (
        replace(prepared, masks=masks),
        replace(prepared, cases=(replace(first, has_mask=False), *others)),
    ):
        note_shortfalls(path, data, prepared.patient_ids, torch.device("cpu"))
        found.append(checkpoint.load_segmentor(path).info["shortfalls"])
    assert found[0] == found[1]
    assert found[0]
