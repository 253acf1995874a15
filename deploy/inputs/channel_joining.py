"""Join files that are channels of one image by their names: `X_0000.nii.gz` and `X_0001.nii.gz` in one folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

from deploy.inputs.channel_files import CHANNELS_APART
from deploy.inputs.source_kinds import Source
from maag.config.data import DataConfig
from maag.data.datasets.nnunet import CHANNEL_NAME
from maag.data.files import nifti, pictures
from maag.data.files.label_files import stem_of

_REASON = "named as the image whose channels are beside them"


def join_channels(
    sources: Iterable[Source], data: DataConfig, passed_over: MutableMapping[str, str] | None = None
) -> Iterator[Source]:
    """The sources; if the model takes several channels, `X_0000` and `X_0001` of one folder become one source, `X`.

    Pictures are joined only for models of nnU-Net's layout, and only if their numbers are those of all channels and
    each holds one channel: others hold all channels in one file, and their numbers may be those of frames.

    A file `X` beside them is the label of that image, not an image, and is added to `passed_over`.
    """
    if data.channels == 1:
        yield from sources
        return
    groups: dict[tuple[str, ...], dict[str, Source]] = {}
    for source in sources:
        groups.setdefault(_key_of(source), {})[source.place] = source
    all_ordered = [
        sorted(members.values(), key=lambda source: (_number_of(source) or 0, source.place))
        for members in groups.values()
    ]
    joined = [_are_channels(ordered, data) for ordered in all_ordered]
    images = {_image_of(ordered[0]) for ordered, whether in zip(all_ordered, joined, strict=True) if whether}
    for ordered, whether in zip(all_ordered, joined, strict=True):
        if not whether:
            for source in ordered:
                if source.slices or _number_of(source) is not None or _image_of(source) not in images:
                    yield source
                elif passed_over is not None:
                    passed_over[source.place] = _REASON
            continue
        first = ordered[0]
        name, target = _case_of(first), PurePosixPath(first.target)
        ending = target.name.removeprefix(stem_of(Path(target.name)))
        problem = _problem_of(name, ordered, data.channels)
        yield first.with_channels(ordered[1:], str(target.with_name(f"{name}{ending}")), problem)


def _are_channels(ordered: Sequence[Source], data: DataConfig) -> bool:
    """Whether files of one name are channels of an image, one channel each."""
    numbers = [_number_of(source) for source in ordered]
    if not pictures.is_picture(Path(ordered[0].place)):
        return None not in numbers
    if data.dataset != CHANNELS_APART or numbers != list(range(data.channels)):
        return False
    # Only if names are ambiguous, as this may fetch an object from a bucket.
    return next((bands for source in ordered if (bands := source.bands())), 1) == 1


def _problem_of(name: str, members: Sequence[Source], channels: int) -> str | None:
    """Why the members are not the channels that the model takes; None if they are."""
    numbers = [_number_of(source) for source in members]
    if numbers == list(range(channels)):
        return None
    takes = f"the model takes {channels} channels, {name}_0000 to {name}_{channels - 1:04}"
    for one, other in pairwise(members):
        if _number_of(one) == _number_of(other):
            return f"{takes}, but {one.place} and {other.place} are the same channel; keep one of them"
    missing = [f"{name}_{number:04}" for number in range(channels) if number not in numbers]
    if missing:
        verb, them = ("are", "them") if len(missing) > 1 else ("is", "it")
        return f"{takes}, but {', '.join(missing)} {verb} missing; put {them} beside {members[0].place}"
    return f"{takes}, and {members[-1].place} is one too many; remove it, or use a model that was trained with it"


def _key_of(source: Source) -> tuple[str, ...]:
    """The same for the channels of one image."""
    if _number_of(source) is None:
        return source.place, source.target
    folder, case, kind = _image_of(source)
    return folder, source.target.rpartition("/")[0], case, kind


def _image_of(source: Source) -> tuple[str, str, str]:
    """Folder, name without a channel's number, and kind of file."""
    kind = "nifti" if nifti.is_nifti(Path(source.place)) else "picture"
    return source.place.rpartition("/")[0], _case_of(source), kind


def _case_of(source: Source) -> str:
    match = CHANNEL_NAME.match(stem_of(Path(source.place)))
    return match[1] if match else stem_of(Path(source.place))


def _number_of(source: Source) -> int | None:
    """The channel number in the name of a file; None if there is none."""
    match = None if source.slices else CHANNEL_NAME.match(stem_of(Path(source.place)))
    return int(match[2]) if match else None
