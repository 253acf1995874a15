"""Several raters' scribbles: combination, agreement and weights."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from maag.data.scribbles.raters import (
    FULL_WEIGHT,
    agreement_rows,
    combine,
    measure_agreement,
    rater_weights,
    require_plausible_raters,
)
from maag.errors import ConfigError, DataError
from maag.labels import IGNORE

Labels = NDArray[np.uint8]
N = IGNORE


def votes(*rows: list[int]) -> Labels:
    """One row of pixels for each rater, as (1, R, 1, W)."""
    return np.array(rows, dtype=np.uint8)[None, :, None, :]


def noisy_raters(errors: tuple[float, ...], annotated_fraction: float = 0.5, seed: int = 0) -> tuple[Labels, Labels]:
    """True labels (S, H, W), and scribbles (S, R, H, W) of raters who err at random pixels."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, (3, 80, 80)).astype(np.uint8)
    raters = []
    for error in errors:
        wrong = (truth + random.integers(1, 4, truth.shape)) % 4
        labels = np.where(random.random(truth.shape) < error, wrong, truth)
        raters.append(np.where(random.random(truth.shape) < annotated_fraction, labels, IGNORE))
    return truth, np.stack(raters, axis=1).astype(np.uint8)


def test_a_union_keeps_labels_that_no_rater_contradicts() -> None:
    labels, weights = combine(votes([1, 1, N, N, 0], [1, 2, 3, N, N], [1, 2, N, N, 0]), 4, "union", ())
    assert labels[0, 0].tolist() == [1, N, 3, N, 0]
    assert weights is None


def test_a_majority_wins_and_a_tie_is_unlabelled() -> None:
    labels, _ = combine(votes([1, 1, N, 2, 0], [1, 2, 3, 1, N], [1, 2, N, N, 0]), 4, "majority", ())
    assert labels[0, 0].tolist() == [1, 2, 3, N, 0]


def test_weighted_voting_returns_the_winning_label_and_its_margin() -> None:
    labels, weights = combine(votes([1, 1, N, 2], [2, 2, 3, N], [2, N, N, N]), 4, "weighted", (1.0, 0.6, 0.2))
    assert weights is not None
    assert labels[0, 0].tolist() == [1, 1, 3, 2]
    np.testing.assert_allclose(weights[0, 0] / FULL_WEIGHT, [0.2, 0.4, 0.6, 1.0], atol=1 / FULL_WEIGHT)


def test_a_combination_does_not_depend_on_chunking() -> None:
    _, raters = noisy_raters((0.1, 0.3, 0.3))
    many = np.concatenate([raters] * 40)
    whole, _ = combine(many, 4, "majority", ())
    np.testing.assert_array_equal(whole[:3], combine(raters, 4, "majority", ())[0])
    np.testing.assert_array_equal(whole[-3:], whole[:3])


def test_agreement_ranks_raters_by_their_error_rates() -> None:
    errors = (0.05, 0.25, 0.5)
    _, raters = noisy_raters(errors)
    agreement = measure_agreement([raters], ("good", "fair", "poor"), 4)
    weights = rater_weights(agreement, ())
    assert weights[0] == 1
    skill = [1 - error * 4 / 3 for error in errors]
    np.testing.assert_allclose(weights, np.array(skill) / skill[0], atol=0.08)
    assert [item.drawn for item in agreement] == (raters != IGNORE).sum(axis=(0, 2, 3)).tolist()
    in_parts = measure_agreement([raters[:1], raters[1:]], ("good", "fair", "poor"), 4)
    assert in_parts == agreement
    assert agreement[0].with_rater["fair"] == pytest.approx((1 - errors[0]) * (1 - errors[1]), abs=0.05)
    rows = agreement_rows(agreement)
    assert rows[0] == ["rater", "drawn", "shared", "agreement", "weight", "with good", "with fair", "with poor"]
    assert rows[1][0] == "good"
    assert rows[1][5] is None


def test_each_of_two_raters_is_compared_only_with_the_other() -> None:
    _, raters = noisy_raters((0.1, 0.4))
    one, other = measure_agreement([raters], ("one", "other"), 4)
    assert one.agreement == one.with_rater["other"] == pytest.approx(0.9 * 0.6 + 0.1 * 0.4 / 3, abs=0.05)
    assert other.agreement == other.with_rater["one"]


def test_agreement_is_averaged_over_classes_so_background_does_not_dominate() -> None:
    one, other = [0] * 90 + [1] * 5 + [0] * 5, [0] * 90 + [1] * 10
    found, _ = measure_agreement([votes(one, other)], ("one", "other"), 2)
    assert found.with_rater["other"] == pytest.approx((1 + 0.5) / 2)


def test_weighted_voting_is_more_accurate_than_a_majority_of_bad_raters() -> None:
    truth, raters = noisy_raters((0.05, 0.6, 0.6), annotated_fraction=1.0)
    weights = rater_weights(measure_agreement([raters], ("a", "b", "c"), 4), ())
    accuracy = {
        method: (combine(raters, 4, method, weights)[0] == truth).mean()  # type: ignore[arg-type]
        for method in ("majority", "weighted", "union")
    }
    assert accuracy["weighted"] > accuracy["majority"] > accuracy["union"]


def test_a_rater_who_contradicts_the_others_is_refused() -> None:
    truth, raters = noisy_raters((0.05, 0.1, 0.1))
    raters[:, 2] = np.where(raters[:, 2] == IGNORE, IGNORE, (truth + 1) % 4)
    with pytest.raises(DataError, match=r"rater upside-down agrees with the others on 3 % .* --scribbles"):
        require_plausible_raters(measure_agreement([raters], ("a", "b", "upside-down"), 4), 4)


def test_raters_without_shared_pixels_need_explicit_weights() -> None:
    agreement = measure_agreement([votes([1, N], [N, 2])], ("a", "b"), 4)
    assert agreement[0].shared == 0
    require_plausible_raters(agreement, 4)
    with pytest.raises(DataError, match=r"rater a shares no pixel with the others.*data\.rater_weights"):
        rater_weights(agreement, ())
    assert rater_weights(agreement, (1, 4)) == (0.25, 1)


@pytest.mark.parametrize("given", [(1.0,), (0.0, 0.0), (1.0, 2.0, 3.0)])
def test_weights_that_do_not_match_the_raters_are_refused(given: tuple[float, ...]) -> None:
    agreement = measure_agreement([votes([1, 1], [1, 2])], ("a", "b"), 4)
    with pytest.raises(ConfigError, match="for the 2 raters a, b; give one for each, not all 0"):
        rater_weights(agreement, given)
