"""The frames of enhanced DICOM files, each with a header as a file of one slice has, out of its functional groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_for_tag

from maag.data.files.dicom_file import SliceGeometry, naming_damage
from maag.errors import DataError

CLOCKS = ("TemporalPositionIdentifier", "TriggerTime")
"""What tells the phases of a cine apart, the first that does so at every place."""
FRAME_CLOCKS = (
    *("TemporalPositionIndex", "NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase"),
    *("TemporalPositionTimeOffset", *CLOCKS),
)
"""The same of frames; the last two where files of one slice were converted."""
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
"""Functional groups that are read, later ones before what was left over when files were converted."""
_OF_ALL_FRAMES = ("Rows", "Columns", "RescaleSlope", "RescaleIntercept")
"""The last two are out of place there, and are taken where no functional group has them."""
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
FRAME_TAGS = ["NumberOfFrames", *_OF_ALL_FRAMES, _SHARED, _PER_FRAME, "DimensionIndexSequence"]
"""Of a file's header: what `frames_of` needs of it."""
_KINDS = ("EffectiveEchoTime", "FrameType", "ComplexImageComponent", "DiffusionBValue", "VelocityEncodingDirection")
_TIMES = frozenset(FRAME_CLOCKS)
_PLACE_OR_TIME = _TIMES.union(
    ("StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation"),
    ("ActualCardiacTriggerDelayTime", "FrameAcquisitionDateTime", "FrameReferenceDateTime"),
    ("FrameAcquisitionNumber", "AcquisitionNumber", "SeriesNumber", "InstanceNumber"),
)
"""Dimensions along which slices of one volume or cine may lie."""
_WAY_OUT = "export each as a series of its own, or convert the one to segment to NIfTI"


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One frame of an enhanced file."""

    header: pydicom.Dataset
    """Its own elements and those that frames have in common, as in a file of one slice."""
    kind: Mapping[str, str]
    """What phases of a cine have in common, and echoes do not."""
    stack: str
    """Its StackID; empty where it has none."""


def frames_of(header: pydicom.Dataset, path: Path) -> list[Frame]:
    """The frames of a file that describes them one by one, in its order; none of a file of one slice.

    Args:
        header: of the file, with FRAME_TAGS.
        path: of the file, for errors.

    Raises DataError where functional groups are damaged, or not as many as frames.
    """
    with naming_damage(path):
        count = int(header.get("NumberOfFrames") or 1)
        items = header.get(_PER_FRAME) or []
        if not items and count > 1:
            raise DataError(
                f"{path}: holds {count} frames and does not say where each lies ({_PER_FRAME}): export the series as "
                "enhanced DICOM or one slice a file, or convert it to NIfTI"
            )
        if items and len(items) != count:
            raise DataError(
                f"{path}: holds {count} frames and describes {len(items)} ({_PER_FRAME}); they must agree: export the "
                "series again"
            )
        if not items:
            return []
        common = pydicom.Dataset()
        for tag in _OF_ALL_FRAMES:
            if tag in header:
                common[tag] = header[tag]
        for item in header.get(_SHARED) or []:
            common.update(_flat(item))
        pointers = [item.DimensionIndexPointer for item in header.get("DimensionIndexSequence") or []]
        dimensions = [keyword_for_tag(pointer) for pointer in pointers]
        return [_frame(common, item, dimensions) for item in items]


def require_one_stack(frames: Sequence[Frame], geometries: Sequence[SliceGeometry], path: Path) -> None:
    """Raise DataError where `frames` of one file, which lie so, are of several stacks or directions."""
    stacks = sorted({frame.stack for frame in frames})
    if len(stacks) > 1:
        raise DataError(
            f"{path}: holds {len(stacks)} stacks of slices (StackID {', '.join(stacks)}), and a volume is one; "
            f"{_WAY_OUT}"
        )
    first = geometries[0]
    for number, other in enumerate(geometries, start=1):
        if not other.has_grid_of(first):
            raise DataError(
                f"{path}: frame {number} has another direction or pixel size than frame 1, and slices of a volume have "
                f"the same; {_WAY_OUT}"
            )


def _frame(common: pydicom.Dataset, item: pydicom.Dataset, dimensions: Sequence[str]) -> Frame:
    header = pydicom.Dataset()
    header.update(common)
    header.update(_flat(item))
    values = header.get("DimensionIndexValues")
    indices = dict(zip(dimensions, [values] if isinstance(values, int) else values or [], strict=False))
    kind = {name: str(index) for name, index in indices.items() if name and name not in _PLACE_OR_TIME}
    kind |= {name: _said(header[name].value) for name in _KINDS if name in header}
    # Where a time is left out, its place among the times tells as much.
    for name in _TIMES.intersection(indices):
        if name not in header:
            setattr(header, name, indices[name])
    return Frame(header, kind, str(header.get("StackID") or ""))


def _said(value: object) -> str:
    """The same for numbers that differ by rounding alone."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(item: pydicom.Dataset) -> pydicom.Dataset:
    """The elements of the functional groups of an item."""
    flat = pydicom.Dataset()
    for group in _GROUPS:
        for elements in (item.get(group) or [])[:1]:
            flat.update(elements)
    return flat
