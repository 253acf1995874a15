"""A factory of cases with an image and a mask on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from square_masks import MakeCase, write_case


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    return partial(write_case, tmp_path / "data")
