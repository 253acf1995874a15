"""Synthetic patients in ACDC's layout."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.catalog import find_cases, write_phantom
from maag.data.check import check
from maag.errors import StorageError


@pytest.mark.slow
def test_a_phantom_depends_only_on_its_seed_and_passes_the_check(tmp_path: Path, tiny_config: Config) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom("acdc", tmp_path / name, 4, seed)
    content = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))}
        for name in "abc"
    }
    assert content["a"] == content["b"]
    assert content["a"] != content["c"]
    report = check(tmp_path / "a", tiny_config.data)
    assert report.problems == ()
    assert all(item.slices_scribbled and item.cases_in_masks for item in report.classes)
    for case in find_cases(DataConfig(), tmp_path / "a"):
        scribble = np.asarray(nib.load(case.scribbles[0].path).dataobj)
        mask = np.asarray(nib.load(case.masks[0]).dataobj)
        assert (scribble == mask)[scribble != 4].all()
    with pytest.raises(StorageError, match="not empty; choose a new folder"):
        write_phantom("acdc", tmp_path / "a", 4, 1)
