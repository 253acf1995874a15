"""What only real data can show; set MAAG_ACDC to a folder of ACDC with its scribbles."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from maag.data.cache.preparing import prepare
from maag.data.catalog import preset, reader_of
from maag.data.check import check
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.labels import IGNORE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif("MAAG_ACDC" not in os.environ, reason="set MAAG_ACDC to a folder of real ACDC data"),
]


def test_all_patients_are_read_and_split_as_in_the_paper(tmp_path: Path) -> None:
    root = Path(os.environ["MAAG_ACDC"])
    config = preset("acdc", "fast", root)
    report = check(root, config.data)
    assert report.problems == ()
    assert report.counts["cases"] == 2 * report.counts["patients"]
    background, *foreground = (item.coverage_mean for item in report.classes)
    assert 0.3 < background < 1.5  # % of a slice, as published, without padding
    assert all(0.05 < share < 0.5 for share in foreground)

    prepared = prepare(root, config.data, tmp_path / "cache")
    split = make_split(prepared.patients, config.data, reader_of("acdc").split0)
    assert split.scheme == "split0"
    assert (len(split.scribbled), len(split.shapes), len(split.val)) == (35, 35, 15)
    supervision = supervise(prepared, split, config)
    scribbles = supervision.scribbles[supervision.scribbled]
    truth = supervision.masks[supervision.scribbled]
    structures = (scribbles != IGNORE) & (scribbles != 0)
    assert (scribbles == truth)[structures].mean() > 0.9
    assert np.isfinite(supervision.images[supervision.scribbled]).all()
