"""Several raters of one data set: combined and weighted for the loss, and compared before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acdc_supervision import make_supervision, without_augmentation

from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.errors import DataError
from maag.labels import IGNORE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def three_raters(phantom_dir: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    sources = ("own", "simulated:curve", "simulated:skeleton-dilated")
    return prepare(phantom_dir, tiny_config.data, tmp_path_factory.mktemp("raters"), sources)


@pytest.mark.slow
def test_raters_are_combined_and_their_weights_reach_the_loss(tiny_config: Config, three_raters: PreparedData) -> None:
    assert three_raters.scribbles.shape[1] == 3
    one = make_supervision(three_raters, tiny_config)[1]
    assert one.scribble_weights is None
    assert [item.rater for item in one.agreement] == list(three_raters.raters)
    assert all((item.agreement or 0) > 0.5 for item in one.agreement)
    annotated = (one.scribbles != IGNORE).mean()
    assert annotated > (three_raters.scribbles[:, 0] != IGNORE).mean()

    given = without_augmentation(tiny_config, {"data.raters": "weighted", "data.rater_weights": [1.0, 0.5, 0.25]})
    weighted = make_supervision(three_raters, given)[1]
    assert weighted.scribble_weights is not None
    batch = TrainingBatches(weighted, given, CPU).at(0)
    assert batch.label_weights is not None
    labelled = batch.labels != IGNORE
    assert {round(float(value), 2) for value in batch.label_weights[labelled].unique()} >= {0.25, 0.5, 1.0}


def test_a_rater_who_agrees_less_than_by_chance_is_refused_before_training(
    tiny_config: Config, three_raters: PreparedData
) -> None:
    wrong = np.array(three_raters.scribbles)
    last = wrong[:, 2]
    last[last != IGNORE] = (last[last != IGNORE] + 1) % 4
    broken = replace(three_raters, scribbles=wrong)
    with pytest.raises(DataError, match="less than by chance"):
        make_supervision(broken, tiny_config)


def test_rater_agreement_counts_training_patients_and_excludes_padding(
    tiny_config: Config, three_raters: PreparedData
) -> None:
    small = tuple(
        replace(case, source_shape=(case.source_shape[0], 20, 24), spacing_mm=(case.spacing_mm[0], 4.0, 4.0))
        for case in three_raters.cases
    )
    in_padding = replace(three_raters, cases=small)
    split = make_split(in_padding.patients, tiny_config.data)
    one, *others = split.scribbled
    assert others
    found = supervise(in_padding, replace(split, scribbled=(one,), unlabelled=tuple(others)), tiny_config)
    images = in_padding.scribbles[in_padding.slices_of([one])][..., 6:26, 4:28]
    assert [item.drawn for item in found.agreement] == (images != IGNORE).sum(axis=(0, 2, 3)).tolist()
