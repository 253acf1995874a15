"""Which patient does what. By patient, without overlap, the same for the same data and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from maag.config.schema import DataConfig
from maag.errors import DataError, SplitError

FORMAT_VERSION = 1
PARTS = ("scribbled", "shapes", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Patients by part. Raises SplitError when one patient stands in two parts."""

    scheme: str
    """How it was made: `split0`, `random-SEED`."""
    scribbled: tuple[str, ...]
    """Train the segmentor."""
    shapes: tuple[str, ...]
    """Give real masks to the discriminator; their images are not used."""
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for one, other in combinations(PARTS, 2):
            both = sorted(set(getattr(self, one)) & set(getattr(self, other)))
            if both:
                raise SplitError(
                    f"split {self.scheme}: {both[0]} is in {one} and in {other}; a patient may be in one part only: "
                    "take it out of one of them"
                )

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change when any patient changes parts."""
        canonical = json.dumps({part: sorted(getattr(self, part)) for part in PARTS}, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The content of a `split.json`."""
        parts = {part: list(getattr(self, part)) for part in PARTS}
        return {"format_version": FORMAT_VERSION, "scheme": self.scheme, "digest": self.digest, **parts}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], source: str = "split.json") -> Split:
        """Read what `to_dict` gave.

        Raises:
            DataError: another format version, a missing part, or a digest that does not fit the patients.
            SplitError: one patient in two parts.
        """
        if plain.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{source}: format_version {plain.get('format_version')} is unknown; this maag reads {FORMAT_VERSION}"
            )
        try:
            split = cls(scheme=plain["scheme"], **{part: tuple(plain[part]) for part in PARTS})
        except (KeyError, TypeError) as error:
            raise DataError(f"{source}: {error} is missing or malformed; a split has {', '.join(PARTS)}") from error
        if plain.get("digest", split.digest) != split.digest:
            raise DataError(
                f"{source}: its digest {plain['digest']} does not fit its patients ({split.digest}); the file was "
                "edited: restore it, or take the digest out to accept it as it is"
            )
        return split


def make_split(
    patients: Collection[str], data: DataConfig, split0: Mapping[str, Collection[str]] | None = None
) -> Split:
    """Split the `patients` that are there, as `data.split` says.

    Args:
        patients: ids.
        data: `split` and the settings of a random one.
        split0: the data set's published split by part, if it has one; patients that are not there are left out.

    Raises:
        SplitError: a needed part would be empty.
    """
    published = None if split0 is None else {part: sorted(set(patients) & set(split0[part])) for part in PARTS}
    usable = published is not None and all(published[part] for part in ("scribbled", "shapes", "val"))
    if data.split == "split0" and not usable:
        raise SplitError(
            f"data.split=split0: the {len(set(patients))} patients that are there do not fill its training and "
            "validation parts; use data.split=random"
        )
    if published is not None and usable and data.split != "random":
        return Split(scheme="split0", **{part: tuple(published[part]) for part in PARTS})
    return _random_split(sorted(set(patients)), data)


def _random_split(patients: list[str], data: DataConfig) -> Split:
    order = [patients[place] for place in np.random.default_rng(data.split_seed).permutation(len(patients))]
    num_val = max(1, round(data.val_fraction * len(order)))
    num_test = round(data.test_fraction * len(order))
    train = order[num_val + num_test :]
    num_scribbled = (len(train) + 1) // 2
    if len(train) < 2:
        raise SplitError(
            f"{len(patients)} patients: after {num_val} for validation and {num_test} for the test, {len(train)} are "
            "left to train on, and 2 are needed; add patients, or lower data.val_fraction and data.test_fraction"
        )
    return Split(
        scheme=f"random-{data.split_seed}",
        scribbled=tuple(sorted(train[:num_scribbled])),
        shapes=tuple(sorted(train[num_scribbled:])),
        val=tuple(sorted(order[:num_val])),
        test=tuple(sorted(order[num_val : num_val + num_test])),
    )
