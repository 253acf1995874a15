"""Several raters' scribbles of one image: their agreement, and one combined label per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maag.errors import ConfigError, DataError
from maag.labels import IGNORE

FULL_WEIGHT = 255
"""Stored weight of a pixel with weight 1."""
_ROUNDS = 200  # of fitting skills to pairwise agreement; each halves the distance
_SLICES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterAgreement:
    """Agreement of one rater with the weighted vote of the others, on commonly annotated pixels."""

    rater: str
    drawn: int
    """Annotated pixels."""
    shared: int
    """Annotated pixels that another rater annotated as well."""
    agreement: float | None
    """Fraction of the shared pixels with the others' label, mean over classes; None when nothing is shared."""
    weight: float | None
    """Estimated skill above chance, 1 for the best rater; None when nothing is shared."""
    with_rater: dict[str, float | None]
    """Agreement with each other rater alone."""


def measure_agreement(
    scribbles: Iterable[NDArray[np.uint8]], raters: Sequence[str], num_classes: int
) -> tuple[RaterAgreement, ...]:
    """Compare raters, one entry for each.

    Where a rater labels each of C classes correctly with probability a and errs evenly, two raters' agreement above
    chance is the product of their skills (a C - 1) / (C - 1) (the one-parameter case of Dawid and Skene, 1979). The
    skills are fitted to all pairs, each weighted by its number of shared pixels.

    Args:
        scribbles: parts (S, R, H, W) uint8, IGNORE where not annotated.
        raters: R names.
        num_classes: background included.
    """
    drawn = np.zeros(len(raters), dtype=np.int64)
    parts = [np.empty((0, len(raters)), dtype=np.uint8)]
    for part in scribbles:
        votes = np.moveaxis(part, 1, -1).reshape(-1, len(raters))
        drawn += (votes != IGNORE).sum(axis=0)
        parts.append(votes[(votes != IGNORE).sum(axis=1) > 1])
    votes = np.concatenate(parts)
    skills = _skills(votes, num_classes)
    weights = skills / (skills.max() or 1.0)
    found = []
    for place, rater in enumerate(raters):
        agreement = _agreement(votes[:, place], _vote(votes, weights, without=place), num_classes)
        others = {
            other: _agreement(votes[:, place], votes[:, column], num_classes)
            for column, other in enumerate(raters)
            if column != place
        }
        shares = any(value is not None for value in others.values())
        found.append(
            RaterAgreement(
                rater=rater,
                drawn=int(drawn[place]),
                shared=int((votes[:, place] != IGNORE).sum()),
                agreement=agreement,
                weight=float(weights[place]) if shares else None,
                with_rater=others,
            )
        )
    return tuple(found)


def require_plausible_raters(agreements: Sequence[RaterAgreement], num_classes: int) -> None:
    """Raise DataError for a rater who agrees with the others less than by chance."""
    for item in agreements:
        if item.agreement is not None and item.agreement < 1 / num_classes:
            raise DataError(
                f"rater {item.rater} agrees with the others on {100 * item.agreement:.0f} % of the {item.shared} "
                f"shared pixels, less than by chance ({100 / num_classes:.0f} %); check the label numbers, or leave "
                "this source out of --scribbles"
            )


def rater_weights(agreements: Sequence[RaterAgreement], given: Sequence[float]) -> tuple[float, ...]:
    """A weight in [0, 1] for each rater, the largest being 1: the `given` ones, else from agreement.

    Raises:
        ConfigError: not one weight for each rater, or all of them are 0.
        DataError: a rater shares no pixel with the others.
    """
    if given:
        if len(given) != len(agreements) or not max(given):
            raise ConfigError(
                f"data.rater_weights has {len(given)} weights {list(given)} for the {len(agreements)} raters "
                f"{', '.join(item.rater for item in agreements)}; give one for each, not all 0"
            )
        return tuple(weight / max(given) for weight in given)
    for item in agreements:
        if item.weight is None:
            raise DataError(
                f"rater {item.rater} shares no pixel with the others, so no weight can be estimated; give one for each "
                "rater with data.rater_weights, or use data.raters=union"
            )
    return tuple(item.weight or 0.0 for item in agreements)


def combine(
    scribbles: NDArray[np.uint8],
    num_classes: int,
    method: Literal["union", "majority", "weighted"],
    weights: Sequence[float],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Combine raters' scribbles into one label per pixel.

    Args:
        scribbles: (S, R, H, W) uint8, IGNORE where not annotated.
        num_classes: background included.
        method: as `data.raters`.
        weights: one for each rater; used if `method` is weighted.

    Returns:
        Labels (S, H, W) uint8, IGNORE where not annotated or without a winning label; and if weighted their weights
        (S, H, W) uint8, the winning label's lead over the next times FULL_WEIGHT.
    """
    shape = (len(scribbles), *scribbles.shape[2:])
    labels = np.empty(shape, dtype=np.uint8)
    leads = np.empty(shape, dtype=np.uint8) if method == "weighted" else None
    votes_of = np.asarray(weights if method == "weighted" else np.ones(scribbles.shape[1]), dtype=np.float32)
    for start in range(0, len(scribbles), _SLICES_AT_ONCE):
        part = slice(start, start + _SLICES_AT_ONCE)
        votes = np.asarray(scribbles[part])
        scores = np.stack([np.tensordot(votes_of, votes == value, axes=(0, 1)) for value in range(num_classes)])
        best = scores.argmax(axis=0)
        ranked = np.sort(scores, axis=0)
        first, second = ranked[-1], ranked[-2]
        wins = (first > 0) & (second == 0) if method == "union" else first > second
        labels[part] = np.where(wins, best, IGNORE)
        if leads is not None:
            leads[part] = np.rint(FULL_WEIGHT * np.clip(first - second, 0, 1))
    return labels, leads


def agreement_rows(agreements: Sequence[RaterAgreement]) -> list[list[Any]]:
    """Table rows: a header, then one row for each rater."""
    names = [item.rater for item in agreements]
    header = ["rater", "drawn", "shared", "agreement", "weight", *(f"with {name}" for name in names)]
    rows = [
        [
            item.rater,
            item.drawn,
            item.shared,
            item.agreement,
            item.weight,
            *(item.with_rater.get(name) for name in names),
        ]
        for item in agreements
    ]
    return [header, *rows]


def _skills(votes: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """(R,) in [0, 1] from pairwise agreement, by alternating least squares."""
    count = votes.shape[1]
    above, shared = np.zeros((count, count)), np.zeros((count, count))
    for one in range(count):
        for other in range(one):
            both = int(((votes[:, one] != IGNORE) & (votes[:, other] != IGNORE)).sum())
            rates = (_agreement(votes[:, a], votes[:, b], num_classes) for a, b in ((one, other), (other, one)))
            agreement = np.mean([rate for rate in rates if rate is not None] or [0.0])
            above[one, other] = above[other, one] = (agreement * num_classes - 1) / (num_classes - 1)
            shared[one, other] = shared[other, one] = both
    skills = np.ones(count)
    for _ in range(_ROUNDS):
        fitted = (shared * above) @ skills / np.maximum(shared @ skills**2, np.finfo(float).tiny)
        skills = 0.5 * skills + 0.5 * np.clip(fitted, 0, 1)
    return skills


def _vote(votes: NDArray[np.uint8], weights: NDArray[np.float64], *, without: int) -> NDArray[np.uint8]:
    """Weighted vote of the other raters, (P, R) to (P,); IGNORE where there is none or a tie."""
    others = [column for column in range(votes.shape[1]) if column != without]
    labels = sorted(set(np.unique(votes).tolist()) - {IGNORE})
    if not labels:
        return np.full(len(votes), IGNORE, dtype=np.uint8)
    scores = np.stack([(votes[:, others] == label) @ weights[others] for label in labels])
    ranked = np.sort(scores, axis=0)
    wins = ranked[-1] > (ranked[-2] if len(labels) > 1 else 0)
    return np.where(wins, np.array(labels, dtype=np.uint8)[scores.argmax(axis=0)], np.uint8(IGNORE))


def _agreement(one: NDArray[np.uint8], other: NDArray[np.uint8], num_classes: int) -> float | None:
    """Fraction of commonly annotated pixels with equal labels, mean over `other`'s classes."""
    both = (one != IGNORE) & (other != IGNORE)
    one, other = one[both], other[both]
    rates = [float((one[other == value] == value).mean()) for value in range(num_classes) if (other == value).any()]
    return float(np.mean(rates)) if rates else None
