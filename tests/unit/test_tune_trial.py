"""A trial without Ray around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.config import codec
from maag.config.schema import Config
from maag.data.splits import Split
from maag.errors import DataError
from tune.trial import TrialPlan, prepare_the_same


def test_a_node_with_other_data_trains_no_trial(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    plan = TrialPlan(
        base=codec.to_dict(tiny_config), data_dir=str(phantom_dir), scribbles=(), data_digest="other",
        cache_root=str(tmp_path / "cache"), split=split.to_dict(), trials_dir=str(tmp_path / "trials"), device="cpu",
        threads=1, exchange=False,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"node .*: has other data \(digest .*\) than training was begun on \(other\)"):
        prepare_the_same(tiny_config, plan)
