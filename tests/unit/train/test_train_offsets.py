"""The search for class offsets, and the counts that it is based on."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maag.config.networks import GateConfig, SegmentorConfig
from maag.labels import IGNORE
from maag.models.segmentor import Segmentor
from maag.train.offsets import (
    LIMIT,
    PixelScores,
    best_offsets,
    concatenated,
    dice_of_cases,
    gain_lower_bound,
    no_scores,
    pixel_scores,
    sampling_stride,
    with_offsets,
)

NUM_CASES = 3
seeds = st.integers(0, 2**32 - 1)


def count_confusion(labels: torch.Tensor, masks: torch.Tensor, cases: torch.Tensor, num_classes: int) -> torch.Tensor:
    counts = torch.zeros(NUM_CASES, num_classes, num_classes, dtype=torch.int64)
    for case, mask, label in zip(cases.tolist(), masks, labels, strict=True):
        for real, predicted in zip(mask.flatten().tolist(), label.flatten().tolist(), strict=True):
            if real != IGNORE:
                counts[case, real, predicted] += 1
    return counts


@given(seed=seeds, num_classes=st.integers(2, 5), spread=st.sampled_from([0.1, 1.0, 4.0]))
def test_confusion_with_offsets_matches_counting_every_pixel(seed: int, num_classes: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(5, num_classes, 6, 4, generator=generator)
    masks = torch.randint(num_classes, (5, 6, 4), generator=generator, dtype=torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORE
    cases = torch.tensor([0, 0, 2, 2, 2])
    offsets = LIMIT * (2 * torch.rand(num_classes, generator=generator) - 1)

    parts = [pixel_scores(logits[some], masks[some], cases[some], NUM_CASES, LIMIT) for some in (slice(2), slice(2, 5))]
    found = concatenated([no_scores(NUM_CASES, num_classes, torch.device("cpu")), *parts])

    labels = (logits + offsets[:, None, None]).argmax(dim=1)
    assert torch.equal(found.confusion(offsets), count_confusion(labels, masks, cases, num_classes))


@given(seed=seeds, num_classes=st.integers(2, 5), digits=st.sampled_from([0, 1, 6]))
def test_one_pass_counts_the_confusion_for_all_offsets_of_a_class(seed: int, num_classes: int, digits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few digits, so that classes tie in many pixels.
    logits = torch.randn(3, num_classes, 6, 4, generator=generator).round(decimals=digits)
    masks = torch.randint(num_classes, (3, 6, 4), generator=generator, dtype=torch.uint8)
    scores = pixel_scores(logits, masks, torch.tensor([0, 0, 2]), NUM_CASES, LIMIT)
    candidates = (2 * torch.rand(num_classes, generator=generator) - 1).round(decimals=digits).repeat(7, 1)
    candidates[:, int(torch.randint(num_classes, (), generator=generator))] = torch.tensor(
        [0.0, -0.2, 0.2, 1.0, -1.0, 0.6, 0.0]
    )
    assert torch.equal(scores.confusions(candidates), torch.stack([scores.confusion(row) for row in candidates]))


def test_one_pass_counts_more_pixels_than_one_chunk_holds() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 400, 500, generator=generator)
    masks = torch.randint(2, (3, 400, 500), generator=generator, dtype=torch.uint8)
    scores = pixel_scores(logits, masks, torch.tensor([0, 1, 2]), NUM_CASES, 9 * LIMIT)
    assert len(scores.cells) == 600_000  # more than one chunk holds
    candidates = torch.tensor([[0.0, 0.2], [0.0, -0.6]])
    assert torch.equal(scores.confusions(candidates), torch.stack([scores.confusion(row) for row in candidates]))


@given(seed=seeds, num_classes=st.integers(2, 5), digits=st.sampled_from([0, 1, 6]), stride=st.sampled_from([3, 5]))
def test_one_pass_over_sampled_pixels_matches_counting_each_offset_alone(
    seed: int, num_classes: int, digits: int, stride: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, num_classes, 6, 4, generator=generator).round(decimals=digits)
    masks = torch.randint(num_classes, (3, 6, 4), generator=generator, dtype=torch.uint8)
    scores = pixel_scores(logits, masks, torch.tensor([0, 0, 2]), NUM_CASES, LIMIT, stride)
    candidates = torch.zeros(7, num_classes)
    candidates[:, 1] = torch.tensor([0.0, -0.2, 0.2, 1.0, -1.0, 0.6, 0.0])
    assert torch.equal(scores.confusions(candidates), torch.stack([scores.confusion(row) for row in candidates]))


def test_sampled_counts_approximate_all_pixels_and_are_exact_without_offsets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 3, 256, 256, generator=generator)
    masks = torch.randint(3, (4, 256, 256), generator=generator, dtype=torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORE
    cases = torch.tensor([0, 0, 1, 2])
    all_pixels, sampled = (pixel_scores(logits, masks, cases, NUM_CASES, LIMIT, stride) for stride in (1, 5))
    assert len(sampled.cells) < len(all_pixels.cells) / 4
    assert torch.equal(sampled.confusion(torch.zeros(3)), all_pixels.confusion(torch.zeros(3)))
    offsets = torch.tensor([0.0, 0.4, -0.6])
    estimated, exact = (dice_of_cases(scores.confusion(offsets)) for scores in (sampled, all_pixels))
    before = dice_of_cases(all_pixels.confusion(torch.zeros(3)))
    assert (exact - before).abs().max() > 0.01
    torch.testing.assert_close(estimated, exact, rtol=0, atol=0.01)


def test_sampled_pixels_do_not_depend_on_how_slices_are_divided() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(4, 3, 8, 8, generator=generator), torch.zeros(4, 8, 8, dtype=torch.uint8)
    cases = torch.tensor([0, 0, 1, 2])
    whole = pixel_scores(logits, masks, cases, NUM_CASES, LIMIT, 3)
    parts = [
        pixel_scores(logits[some], masks[some], cases[some], NUM_CASES, LIMIT, 3) for some in (slice(1), slice(1, 4))
    ]
    joined = concatenated([no_scores(NUM_CASES, 3, torch.device("cpu")), *parts])
    assert all(torch.equal(a, b) for a, b in zip(whole[:3], joined[:3], strict=True))
    assert joined.stride == 3


def test_a_sampled_pixel_never_makes_counts_negative() -> None:
    logits = torch.tensor([[0.1, 0.0]] * 2).T.reshape(1, 2, 1, 2)
    scores = pixel_scores(
        logits, torch.ones(1, 1, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), 1, LIMIT, 5
    )
    moved = torch.tensor([0.0, 0.6])
    for counts in (scores.confusion(moved), scores.confusions(torch.stack([torch.zeros(2), moved]))):
        assert (counts >= 0).all()
    assert dice_of_cases(scores.confusion(moved)).item() == 1


def test_small_sets_are_counted_in_full_and_large_ones_at_an_odd_stride() -> None:
    assert sampling_stride(300 * 160 * 160) == 1
    assert sampling_stride(2**25) == 1
    assert sampling_stride(2**25 + 1) == 3
    assert sampling_stride(20 * 225 * 512 * 512) == 37


def test_only_pixels_that_offsets_can_change_keep_their_logits() -> None:
    logits = torch.tensor([[4 * LIMIT, 0.0], [1.5 * LIMIT, 0.0]]).T.reshape(1, 2, 1, 2)
    masks = torch.zeros(1, 1, 2, dtype=torch.uint8)
    cases = torch.zeros(1, dtype=torch.int64)
    assert pixel_scores(logits, masks, cases, 1, LIMIT).logits.tolist() == [[1.5 * LIMIT, 0.0]]
    assert pixel_scores(logits, masks, cases, 1, 0.0).logits.shape == (0, 2)


def test_the_search_finds_the_best_offset_of_each_class() -> None:
    best = torch.tensor([0.0, 0.6, -0.4, 0.0])

    def gain(candidates: torch.Tensor) -> list[float]:
        return [1 - float((row - best).abs().sum().round(decimals=4)) for row in candidates]

    torch.testing.assert_close(best_offsets(4, gain), best)


def test_the_search_respects_its_limit_and_keeps_background_unchanged() -> None:
    found = best_offsets(3, lambda candidates: candidates.sum(dim=1).tolist())
    torch.testing.assert_close(found, torch.tensor([0.0, LIMIT, LIMIT]))


def test_the_search_revisits_a_class_after_the_next_one_changes() -> None:
    def gain(candidates: torch.Tensor) -> list[float]:
        return [-float((first - second) ** 2 + (second - 0.6) ** 2) for _, first, second in candidates.double()]

    assert best_offsets(3, gain)[1] > 0


def test_offsets_without_a_gain_stay_zero() -> None:
    assert best_offsets(3, lambda candidates: [0.5] * len(candidates)).tolist() == [0.0, 0.0, 0.0]


def test_the_gain_bound_falls_when_patients_disagree() -> None:
    nan = torch.nan
    before = torch.tensor([[0.5, 0.7], [0.7, 0.5], [0.6, nan], [0.8, 0.8], [nan, nan]])
    patients = torch.tensor([0, 0, 1, 2, 3])
    apart = before + torch.tensor([0.15, 0.05, -0.05, 0.01, 0.0])[:, None]
    found = gain_lower_bound(torch.stack([before, before + 0.02, apart]), before, patients)
    gains = torch.tensor([0.1, -0.05, 0.01])
    torch.testing.assert_close(found, torch.tensor([0.0, 0.02, gains.mean() - 2 * gains.std() / 3**0.5]))
    assert found[2] < 0


def test_two_patients_give_a_gain_bound_of_zero() -> None:
    before = torch.tensor([[0.5, 0.5]]).repeat(4, 1)
    assert gain_lower_bound((before + 0.1)[None], before, torch.tensor([0, 0, 1, 1])).tolist() == [0.0]
    assert gain_lower_bound((before + 0.1)[None], before, torch.tensor([0, 0, 1, 2])).tolist() == pytest.approx([0.1])


def test_weights_with_offsets_add_them_to_the_logits() -> None:
    torch.manual_seed(0)
    segmentor = Segmentor(1, 3, SegmentorConfig(width=2), GateConfig()).eval()
    images = torch.randn(1, 1, 16, 16)
    before = segmentor(images).logits
    weights = segmentor.state_dict()
    assert with_offsets(weights, ()) == weights
    segmentor.load_state_dict(with_offsets(weights, (0.0, -0.4, 0.2)))
    torch.testing.assert_close(segmentor(images).logits, before + torch.tensor([0.0, -0.4, 0.2])[:, None, None])


def test_concatenated_sums_counts_without_holding_all_parts() -> None:
    counts: list[weakref.ref[torch.Tensor]] = []

    def parts() -> Iterator[PixelScores]:
        for _ in range(4):
            part = no_scores(num_cases=3, num_classes=2, device=torch.device("cpu"))
            part = part._replace(settled=part.settled + 1)
            assert all(count() is None for count in counts[:-1])  # the caller still holds the last one
            counts.append(weakref.ref(part.settled))
            yield part
            del part

    assert (concatenated(parts()).settled == 4).all()
