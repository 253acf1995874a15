"""Several trained segmentors as one: which can be averaged, and what is recorded about them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations

from deploy.artifact.manifest import Member, Source, shown_checkpoint
from maag.checkpoint import TrainedSegmentor
from maag.data.files.orientation import orientation_differs
from maag.errors import ConfigError
from maag.models.ensemble import Ensemble

_SHARED_SETTINGS = ("dataset", "classes", "channels", "modality", "spacing_mm", "size_px", "normalization")
"""Settings of `data` that determine what a network sees of an image and what its outputs mean."""


def average_of(networks: Sequence[TrainedSegmentor]) -> tuple[Ensemble, Source]:
    """The average of several trained segmentors, and its source.

    Raises ConfigError if a network is there twice, or if they take different images or classes.
    """
    _require_different(networks)
    for other in networks[1:]:
        _require_alike(networks[0], other)
    members = tuple(
        Member(
            checkpoint=shown_checkpoint(network.path),
            sha256=network.digest,
            kind=network.info.get("kind"),
            split_digest=network.info.get("split_digest"),
            config=network.config,
        )
        for network in networks
    )
    source = Source(
        checkpoint=f"average of {len(members)} networks",
        sha256=hashlib.sha256("".join(member.sha256 for member in members).encode()).hexdigest(),
        kind=_common([member.kind for member in members]),
        split_digest=_common([member.split_digest for member in members]),
        orientations=_common_orientations(networks),
        members=members,
    )
    return Ensemble([network.segmentor for network in networks]), source


def _require_different(networks: Sequence[TrainedSegmentor]) -> None:
    for one, other in combinations(networks, 2):
        if one.digest == other.digest:
            raise ConfigError(
                f"{one.path} and {other.path} are the same network, which would count twice in the average; give each "
                "run once"
            )


def _require_alike(first: TrainedSegmentor, other: TrainedSegmentor) -> None:
    for name in _SHARED_SETTINGS:
        ours, theirs = getattr(first.config.data, name), getattr(other.config.data, name)
        if ours != theirs:
            raise ConfigError(
                f"{first.path} was trained with data.{name}={ours}, and {other.path} with {theirs}; networks can be "
                "averaged only if they take the same images and classes, so export these separately"
            )


def _common(values: Sequence[str | None]) -> str | None:
    return values[0] if len(set(values)) == 1 else None


def _common_orientations(networks: Sequence[TrainedSegmentor]) -> tuple[str, ...] | None:
    """Orientations that all networks were trained on, as far as known, in the order of the first.

    Not all that any of them was trained on: an image that only one knows is seen mirrored or rotated by the others.
    """
    recorded = [(network.path, tuple(network.info.get("orientations") or ())) for network in networks]
    known = [(path, orientations) for path, orientations in recorded if orientations]
    if not known:
        return None if any(network.info.get("orientations") is None for network in networks) else ()
    (_, first), *others = known
    common = tuple(code for code in first if not any(orientation_differs(code, other) for _, other in others))
    if not common:
        each = "; ".join(f"{path}: {' or '.join(orientations)}" for path, orientations in known)
        raise ConfigError(
            f"no image would be oriented like the training images of all networks ({each}); networks can be averaged "
            "only if their images have an orientation in common, so export these separately"
        )
    return common
