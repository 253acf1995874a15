"""The frames of enhanced DICOM files, each with a header like that of a single-slice file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_for_tag

from maag.data.files.dicom_file import SliceGeometry, naming_damage
from maag.errors import DataError

CLOCKS = ("TemporalPositionIdentifier", "TriggerTime")
"""Elements that may distinguish the phases of a cine, in order of preference."""
FRAME_CLOCKS = (
    *("TemporalPositionIndex", "NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase"),
    *("TemporalPositionTimeOffset", *CLOCKS),
)
"""The same for frames; the last two occur in converted single-slice files."""
_GROUPS = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "CardiacSynchronizationSequence",
    "TemporalPositionSequence",
    "MREchoSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "MRDiffusionSequence",
    "MRVelocityEncodingSequence",
)
"""Functional groups that are read; later ones override the leftovers of a conversion."""
_LUT = "ModalityLUTSequence"
_OF_ALL_FRAMES = ("Rows", "Columns", "RescaleSlope", "RescaleIntercept", _LUT)
"""The rescaling does not belong there, and is used only if no functional group has it; a lookup table is refused."""
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
FRAME_TAGS = ["NumberOfFrames", *_OF_ALL_FRAMES, _SHARED, _PER_FRAME, "DimensionIndexSequence"]
"""The elements of a header that `frames_of` needs."""
_KINDS = ("EffectiveEchoTime", "FrameType", "ComplexImageComponent", "DiffusionBValue", "VelocityEncodingDirection")
_TIMES = frozenset(FRAME_CLOCKS)
_PLACE_OR_TIME = _TIMES.union(
    ("StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation"),
    ("ActualCardiacTriggerDelayTime", "FrameAcquisitionDateTime", "FrameReferenceDateTime"),
    ("FrameAcquisitionNumber", "AcquisitionNumber", "SeriesNumber", "InstanceNumber"),
)
"""Dimensions along which the slices of one volume or cine may differ."""
_WAY_OUT = "export each as its own series, or convert the one to segment to NIfTI"


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One frame of an enhanced file."""

    header: pydicom.Dataset
    """Its own and the shared elements, flat as in a single-slice file."""
    kind: Mapping[str, str]
    """Elements that agree among the phases of a cine, but not among echoes."""
    stack: str
    """Its StackID; empty if it has none."""


def frames_of(header: pydicom.Dataset, path: Path) -> list[Frame]:
    """The frames of an enhanced file in the order of the file; empty for a file of one slice.

    Args:
        header: of the file, with FRAME_TAGS.
        path: of the file, for errors.

    Raises DataError as `items_of`, if the functional groups are damaged, or if there is a Modality LUT.
    """
    items = items_of(header, path)
    if not items:
        return []
    with naming_damage(path):
        common = pydicom.Dataset()
        for tag in _OF_ALL_FRAMES:
            if tag in header:
                common[tag] = header[tag]
        for item in header.get(_SHARED) or []:
            common.update(_flat(item))
        pointers = [item.DimensionIndexPointer for item in header.get("DimensionIndexSequence") or []]
        dimensions = [keyword_for_tag(pointer) for pointer in pointers]
        frames = [_frame(common, item, dimensions) for item in items]
        has_lut = any(frame.header.get(_LUT) for frame in frames)
    # Enhanced CT, MR and PET images have a slope and an intercept per frame instead (PS3.3, C.7.6.16.2.9).
    if has_lut:
        raise DataError(
            f"{path}: an enhanced file with a Modality LUT ({_LUT}), where RescaleSlope and RescaleIntercept of each "
            "frame are needed; export the series as classic DICOM, or convert it to NIfTI"
        )
    return frames


def items_of(header: pydicom.Dataset, path: Path) -> Sequence[pydicom.Dataset]:
    """The functional groups of each frame, not parsed yet; empty for a file of one slice.

    Raises DataError unless there are as many as frames.
    """
    with naming_damage(path):
        count = int(header.get("NumberOfFrames") or 1)
        items: Sequence[pydicom.Dataset] = header.get(_PER_FRAME) or []
    if not items and count > 1:
        raise DataError(
            f"{path}: holds {count} frames without their positions ({_PER_FRAME}); export the series as enhanced DICOM "
            "or one slice per file, or convert it to NIfTI"
        )
    if items and len(items) != count:
        raise DataError(
            f"{path}: holds {count} frames but describes {len(items)} ({_PER_FRAME}), which must agree; export the "
            "series again"
        )
    return items


def require_one_stack(frames: Sequence[Frame], geometries: Sequence[SliceGeometry], path: Path) -> None:
    """Raise DataError if the frames of one file have several stacks, orientations or pixel sizes."""
    stacks = sorted({frame.stack for frame in frames})
    if len(stacks) > 1:
        raise DataError(
            f"{path}: holds {len(stacks)} stacks of slices (StackID {', '.join(stacks)}), and a volume has one; "
            f"{_WAY_OUT}"
        )
    first = geometries[0]
    for number, other in enumerate(geometries, start=1):
        if not other.has_grid_of(first):
            raise DataError(
                f"{path}: frame {number} differs from frame 1 in orientation or pixel size, which slices of a volume "
                f"share; {_WAY_OUT}"
            )


def _frame(common: pydicom.Dataset, item: pydicom.Dataset, dimensions: Sequence[str]) -> Frame:
    header = pydicom.Dataset()
    header.update(common)
    header.update(_flat(item))
    values = header.get("DimensionIndexValues")
    indices = dict(zip(dimensions, [values] if isinstance(values, int) else values or [], strict=False))
    kind = {name: str(index) for name, index in indices.items() if name and name not in _PLACE_OR_TIME}
    kind |= {name: _text_of(header[name].value) for name in _KINDS if name in header}
    # If a time is left out, its index orders the frames as well.
    for name in _TIMES.intersection(indices):
        if name not in header:
            setattr(header, name, indices[name])
    return Frame(header, kind, str(header.get("StackID") or ""))


def _text_of(value: object) -> str:
    """Text that is the same for numbers that differ only by rounding."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(item: pydicom.Dataset) -> pydicom.Dataset:
    """The elements of the functional groups of an item, without the groups."""
    flat = pydicom.Dataset()
    for group in _GROUPS:
        for elements in (item.get(group) or [])[:1]:
            flat.update(elements)
    return flat
