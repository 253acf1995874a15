"""Several scribbles of one image: how far their hands agree, and one label for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maag.errors import ConfigError, DataError
from maag.labels import IGNORE

FULL_WEIGHT = 255
"""Stored weight of a pixel that counts wholly."""
_ROUNDS = 200  # of fitting skills to the pairs' agreement; each halves the distance
_SLICES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterAgreement:
    """One rater against the weighted vote of the others, on the pixels that both drew on."""

    rater: str
    drawn: int
    """Pixels drawn."""
    shared: int
    """Of these, pixels that another rater drew on too."""
    agreement: float | None
    """Part of the shared pixels with the others' label, mean over classes; None when nothing is shared."""
    weight: float | None
    """Estimated skill above chance, the best rater's being 1; None when nothing is shared."""
    with_rater: dict[str, float | None]
    """The same agreement with each other rater alone."""


def measure_agreement(
    scribbles: Iterable[NDArray[np.uint8]], raters: Sequence[str], num_classes: int
) -> tuple[RaterAgreement, ...]:
    """Compare raters, one entry for each.

    Where each of C classes is hit with probability a and missed evenly, two raters' agreement above chance is the
    product of their skills (a C - 1) / (C - 1) (the one-parameter case of Dawid and Skene, 1979). The skills are those
    that fit all pairs best, each weighed by the pixels that they share.

    Args:
        scribbles: parts (S, R, H, W) uint8, IGNORE where no stroke is.
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


def require_sense(agreements: Sequence[RaterAgreement], num_classes: int) -> None:
    """Refuse a rater whose strokes contradict the others' everywhere. Raises DataError naming them."""
    for item in agreements:
        if item.agreement is not None and item.agreement < 1 / num_classes:
            raise DataError(
                f"rater {item.rater} has the others' label on {100 * item.agreement:.0f} % of the {item.shared} pixels "
                f"that were drawn on twice, less than chance ({100 / num_classes:.0f} %); check the label numbers, "
                "or leave this source out of --scribbles"
            )


def rater_weights(agreements: Sequence[RaterAgreement], given: Sequence[float]) -> tuple[float, ...]:
    """A weight in [0, 1] for each rater, the greatest 1: as `given`, or from agreement where nothing is given.

    Raises:
        ConfigError: another number of weights than of raters, or all of them 0.
        DataError: a rater who shares no pixel.
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
    """One label for each pixel.

    Args:
        scribbles: (S, R, H, W) uint8, IGNORE where no stroke is.
        num_classes: background included.
        method: as `data.raters`.
        weights: one for each rater, used if weighted.

    Returns:
        Labels (S, H, W) uint8, IGNORE where nobody drew or no label wins; and if weighted the pixels' weights
        (S, H, W) uint8, the winning label's lead over the next in parts of FULL_WEIGHT.
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
    """The table as rows: a header, then one for each rater."""
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
    """(R,) in [0, 1] from the pairs' agreement, by alternating least squares."""
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
    """The label of most weight among the others, IGNORE where there is none or a tie: (P, R) to (P,)."""
    others = [column for column in range(votes.shape[1]) if column != without]
    labels = sorted(set(np.unique(votes).tolist()) - {IGNORE})
    if not labels:
        return np.full(len(votes), IGNORE, dtype=np.uint8)
    scores = np.stack([(votes[:, others] == label) @ weights[others] for label in labels])
    ranked = np.sort(scores, axis=0)
    wins = ranked[-1] > (ranked[-2] if len(labels) > 1 else 0)
    return np.where(wins, np.array(labels, dtype=np.uint8)[scores.argmax(axis=0)], np.uint8(IGNORE))


def _agreement(one: NDArray[np.uint8], other: NDArray[np.uint8], num_classes: int) -> float | None:
    """Part of the commonly drawn pixels with equal labels, by `other`'s class, mean over its classes."""
    both = (one != IGNORE) & (other != IGNORE)
    one, other = one[both], other[both]
    rates = [float((one[other == value] == value).mean()) for value in range(num_classes) if (other == value).any()]
    return float(np.mean(rates)) if rates else None
