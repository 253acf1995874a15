"""Which files are channels of one image, by their names: `X_0000.nii.gz` and `X_0001.nii.gz` of one folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

from deploy.channel_files import CHANNELS_APART
from deploy.source_kinds import Source
from maag.config.schema import DataConfig
from maag.data import nifti, pictures
from maag.data.label_files import stem_of
from maag.data.nnunet import CHANNEL_NAME


def join_channels(sources: Iterable[Source], data: DataConfig) -> Iterator[Source]:
    """The sources, where the model takes several channels with `X_0000`, `X_0001` of one folder as one, `X`.

    Pictures are joined for models of nnU-Net's layout alone, and only where their numbers are those of all channels:
    others hold all channels in a file, and numbers may be those of frames.
    """
    if data.channels == 1:
        yield from sources
        return
    groups: dict[tuple[str, ...], dict[str, Source]] = {}
    for source in sources:
        groups.setdefault(_key_of(source), {})[source.place] = source
    for members in groups.values():
        ordered = sorted(members.values(), key=lambda source: (_number_of(source) or 0, source.place))
        numbers = [_number_of(source) for source in ordered]
        joined = None not in numbers
        if pictures.is_picture(Path(ordered[0].place)):
            joined = data.dataset == CHANNELS_APART and numbers == list(range(data.channels))
        if not joined:
            yield from ordered
            continue
        first = ordered[0]
        name, target = _case_of(first), PurePosixPath(first.target)
        ending = target.name.removeprefix(stem_of(Path(target.name)))
        problem = _problem_of(name, ordered, data.channels)
        yield first.with_channels(ordered[1:], str(target.with_name(f"{name}{ending}")), problem)


def _problem_of(name: str, members: Sequence[Source], channels: int) -> str | None:
    """Why the members are not the channels that the model takes; None where they are."""
    numbers = [_number_of(source) for source in members]
    if numbers == list(range(channels)):
        return None
    takes = f"the model takes {channels} channels, {name}_0000 to {name}_{channels - 1:04}"
    for one, other in pairwise(members):
        if _number_of(one) == _number_of(other):
            return f"{takes}, and {one.place} and {other.place} are one channel; keep one of them"
    missing = [f"{name}_{number:04}" for number in range(channels) if number not in numbers]
    if missing:
        return f"{takes}, and {', '.join(missing)} is not in the input; put it beside {members[0].place}"
    return f"{takes}, and {members[-1].place} is one more; take it out, or take a model that was trained with it"


def _key_of(source: Source) -> tuple[str, ...]:
    """The same for the channels of one image."""
    if _number_of(source) is None:
        return source.place, source.target
    folder, target_folder = source.place.rpartition("/")[0], source.target.rpartition("/")[0]
    return folder, target_folder, _case_of(source), "nifti" if nifti.is_nifti(Path(source.place)) else "picture"


def _case_of(source: Source) -> str:
    match = CHANNEL_NAME.match(stem_of(Path(source.place)))
    return match[1] if match else stem_of(Path(source.place))


def _number_of(source: Source) -> int | None:
    """Which channel a file is by its name; None where that does not say."""
    match = None if source.slices else CHANNEL_NAME.match(stem_of(Path(source.place)))
    return int(match[2]) if match else None
