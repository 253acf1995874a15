"""Splits: patients by part, without overlap, identified by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from maag.data.cases import Part
from maag.errors import DataError, SplitError

FORMAT_VERSION = 1
RELABELLED = "-relabelled"
"""Suffix of the scheme of a split where a model labelled unannotated cases."""
PARTS = ("scribbled", "dense", "unlabelled", "shapes", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """Labels of a patient, over all of its cases."""

    patient_id: str
    scribbled: bool
    masked: bool
    part: Part | None = None
    """The part of the split that the data set itself assigns the patient to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Patients by part. Raises SplitError when a patient is in two parts."""

    scheme: str
    """How it was made: `split0` or `random-SEED`, with RELABELLED appended where it applies."""
    scribbled: tuple[str, ...] = ()
    """Supervise the segmentor with their scribbles."""
    dense: tuple[str, ...] = ()
    """Supervise the segmentor with their masks."""
    unlabelled: tuple[str, ...] = ()
    """Give images to the adversarial term; their labels are not used."""
    shapes: tuple[str, ...] = ()
    """Give real masks to the discriminator; their images are not used."""
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one, other in combinations(PARTS, 2):
            both = sorted(set(getattr(self, one)) & set(getattr(self, other)))
            if both:
                raise SplitError(
                    f"split {self.scheme}: {both[0]} is in {one} and in {other}; a patient may be in one part only: "
                    "remove it from one of them"
                )

    @property
    def relabelled(self) -> bool:
        """Whether a model has labelled unannotated cases, such as frames of 4-D images."""
        return self.scheme.endswith(RELABELLED)

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
        """The inverse of `to_dict`.

        Raises:
            DataError: not a split, another format version, a part missing or no list of names, or a digest that does
                not match.
            SplitError: a patient is in two parts.
        """
        if not isinstance(plain, Mapping):
            raise DataError(f"{source}: no JSON object, so it is no split; give a split.json that maag wrote")
        if plain.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{source}: format_version {plain.get('format_version')} is unknown; this maag reads {FORMAT_VERSION}"
            )
        absent = [name for name in ("scheme", *PARTS) if name not in plain]
        if absent:
            raise DataError(f"{source}: {absent[0]!r} is missing; a split has {', '.join(('scheme', *PARTS))}")
        if not isinstance(plain["scheme"], str):
            raise DataError(f'{source}: scheme is {json.dumps(plain["scheme"])}; it is a name, such as "random-0"')
        for part in PARTS:
            if not isinstance(plain[part], list) or not all(isinstance(name, str) for name in plain[part]):
                raise DataError(
                    f"{source}: {part} is {json.dumps(plain[part])}; each part is a list of patient names, such as "
                    '["patient001"], or []'
                )
        split = cls(scheme=plain["scheme"], **{part: tuple(plain[part]) for part in PARTS})
        if plain.get("digest", split.digest) != split.digest:
            raise DataError(
                f"{source}: its digest {plain['digest']} does not match its patients ({split.digest}); the file was "
                "edited: restore it, or remove the digest to accept it as it is"
            )
        return split
