"""Synthetic abdomens in CHAOS's layout: MR in three contrasts, and CT."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from maag.data.phantoms.dicom_files import save_png, save_slice

_IDS = (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)
_SHAPE = (128, 144)
_LIVER, _RIGHT_KIDNEY, _LEFT_KIDNEY, _SPLEEN = 1, 2, 3, 4
_STORED = {_LIVER: 63, _RIGHT_KIDNEY: 126, _LEFT_KIDNEY: 189, _SPLEEN: 252}
_STRAY = 32
# Mean intensities: background, liver, kidneys, spleen, fat around, muscle; T1 in-phase, out-phase, T2.
_CONTRASTS = {
    "InPhase": (20, 320, 230, 210, 420, 260),
    "OutPhase": (20, 300, 220, 200, 170, 250),
    "T2SPIR": (15, 160, 420, 340, 60, 120),
}
_CT = (24, 1110, 1180, 1120, 920, 1055)  # Hounsfield units + 1000
_MR_NOISE, _CT_NOISE = 22, 18
MR_SPACING_MM, CT_SPACING_MM = 1.61, 2.4


class _Ellipsoid(NamedTuple):
    centre: tuple[float, float, float]
    """(z, y, x) as fractions of the volume."""
    radii: tuple[float, float, float]
    tilt: float = 0.0


def write_mr_patients(out: Path, num_cases: int, seed: int) -> None:
    """Write patients with T1DUAL and T2SPIR series, each with `DICOM_anon` and `Ground`.

    As in the real data: file order is opposite to the order in space, both T1 phases share a series UID and the masks,
    T2 has another number of slices, grey values vary within their ranges, and stray ones occur. Same seed, same bytes.
    """
    for number in range(num_cases):
        patient = str(_IDS[number] if number < len(_IDS) else 40 + number)
        random = np.random.default_rng([seed, number])
        organs = _draw_organs(random)
        spacing = float(random.choice([1.5, 1.61, 1.75, 1.89]))
        for name, depth in (("T1DUAL", int(random.integers(10, 14))), ("T2SPIR", int(random.integers(7, 10)))):
            mask, tissue = _draw_volume(organs, depth)
            phases = ("InPhase", "OutPhase") if name == "T1DUAL" else ("T2SPIR",)
            for phase in phases:
                image = _draw_image(mask, tissue, _CONTRASTS[phase], random, _MR_NOISE)
                folder = out / patient / name / "DICOM_anon" / (phase if name == "T1DUAL" else "")
                _write_series(folder, image, spacing, 5.5, f"{seed} {patient} {name}", offset=phase == "OutPhase")
            for place in range(depth):
                path = out / patient / name / "Ground" / f"IMG-0001-{depth - place:05}.png"
                save_png(path, Image.fromarray(_stored(mask[place], random)))


def write_ct_patients(out: Path, num_cases: int, seed: int) -> None:
    """Write CT patients with liver masks as bilevel PNG, named as in the real data. Same seed, same bytes."""
    for number in range(num_cases):
        patient = str(number + 1)
        random = np.random.default_rng([seed, number, 1])
        mask, tissue = _draw_volume(_draw_organs(random), int(random.integers(12, 16)))
        image = _draw_image(mask, tissue, _CT, random, _CT_NOISE)
        for place in range(len(mask)):
            save_slice(
                out / patient / "DICOM_anon" / f"i{place:04},0000b.dcm",
                image[place],
                spacing_mm=CT_SPACING_MM,
                thickness_mm=3.2,
                position=(-170.0, -150.0, -2.0 * place),
                series=f"{seed} {patient} CT",
                number=place + 1,
                tags={"Modality": "CT", "RescaleIntercept": -1000, "RescaleSlope": 1},
            )
            bilevel = Image.fromarray((255 * (mask[place] == _LIVER)).astype(np.uint8)).convert("1")
            save_png(out / patient / "Ground" / f"liver_GT_{place:03}.png", bilevel)


def draw_mr(phase: str, depth: int, random: np.random.Generator) -> NDArray[np.uint16]:
    """A patient's MR, (`depth`, Y, X) with pixels of MR_SPACING_MM; `phase` is InPhase, OutPhase or T2SPIR."""
    mask, tissue = _draw_volume(_draw_organs(random), depth)
    return _draw_image(mask, tissue, _CONTRASTS[phase], random, _MR_NOISE)


def draw_ct(depth: int, random: np.random.Generator) -> NDArray[np.uint16]:
    """A patient's CT, (`depth`, Y, X) in Hounsfield units + 1000 with pixels of CT_SPACING_MM."""
    mask, tissue = _draw_volume(_draw_organs(random), depth)
    return _draw_image(mask, tissue, _CT, random, _CT_NOISE)


def _write_series(
    folder: Path, image: NDArray[np.uint16], spacing: float, between: float, series: str, *, offset: bool
) -> None:
    depth = len(image)
    for place in range(depth):
        save_slice(
            folder / f"IMG-{2 if offset else 1:04}-{depth - place:05}.dcm",
            image[place],
            spacing_mm=spacing,
            thickness_mm=between,
            position=(-110.0, -100.0, between * place),
            series=series,
            number=depth - place,
            tags={"SpacingBetweenSlices": between},
        )


def _draw_organs(random: np.random.Generator) -> dict[int, _Ellipsoid]:
    """Organs by label; the patient's right is the image's left."""

    def near(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> _Ellipsoid:
        moved = np.array(centre) + random.uniform(-0.02, 0.02, 3)
        scaled = np.array(radii) * random.uniform(0.88, 1.12, 3)
        return _Ellipsoid(tuple(moved), tuple(scaled), float(random.uniform(-0.3, 0.3)))

    return {
        _LIVER: near((0.58, 0.42, 0.3), (0.48, 0.24, 0.2)),
        _RIGHT_KIDNEY: near((0.38, 0.62, 0.33), (0.36, 0.1, 0.065)),
        _LEFT_KIDNEY: near((0.45, 0.62, 0.66), (0.36, 0.1, 0.065)),
        _SPLEEN: near((0.65, 0.5, 0.78), (0.33, 0.14, 0.075)),
    }


def _draw_volume(organs: dict[int, _Ellipsoid], depth: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels (Z, Y, X), and the tissue around: 0 air, 1 fat, 2 muscle, 3 spine."""
    grid = np.indices((depth, *_SHAPE)).astype(float)
    places = [(axis + 0.5) / size for axis, size in zip(grid, (depth, *_SHAPE), strict=True)]
    body = _inside(places, _Ellipsoid((0.5, 0.5, 0.5), (9.0, 0.4, 0.46)))
    flesh = _inside(places, _Ellipsoid((0.5, 0.5, 0.5), (9.0, 0.35, 0.41)))
    spine = _inside(places, _Ellipsoid((0.5, 0.72, 0.5), (9.0, 0.07, 0.06)))
    tissue = body.astype(np.uint8)
    tissue[flesh] = 2
    tissue[spine] = 3
    mask = np.zeros(tissue.shape, dtype=np.uint8)
    for value in (_LIVER, _SPLEEN, _RIGHT_KIDNEY, _LEFT_KIDNEY):
        mask[_inside(places, organs[value]) & flesh & ~spine] = value
    return mask, tissue


def _inside(places: list[NDArray[np.float64]], shape: _Ellipsoid) -> NDArray[np.bool_]:
    z, y, x = (place - middle for place, middle in zip(places, shape.centre, strict=True))
    along, across = y * np.cos(shape.tilt) + x * np.sin(shape.tilt), x * np.cos(shape.tilt) - y * np.sin(shape.tilt)
    inside: NDArray[np.bool_] = (
        (z / shape.radii[0]) ** 2 + (along / shape.radii[1]) ** 2 + (across / shape.radii[2]) ** 2
    ) < 1
    return inside


def _draw_image(
    mask: NDArray[np.uint8],
    tissue: NDArray[np.uint8],
    contrast: tuple[int, ...],
    random: np.random.Generator,
    noise: float,
) -> NDArray[np.uint16]:
    air, liver, kidney, spleen, fat, muscle = (value * random.uniform(0.9, 1.1) for value in contrast)
    image = np.choose(tissue, [air, fat, muscle, 0.8 * muscle])
    for value, level in ((_LIVER, liver), (_RIGHT_KIDNEY, kidney), (_LEFT_KIDNEY, kidney), (_SPLEEN, spleen)):
        image = np.where(mask == value, level, image)
    spread = 0.1 * muscle
    image = image + gaussian_filter(random.normal(0, 8 * spread, image.shape), (0, 3, 3)) * (tissue > 0)
    image = gaussian_filter(image, (0.3, 0.8, 0.8)) + random.normal(0, noise, image.shape)
    drawn: NDArray[np.uint16] = np.clip(image, 0, 4095).astype(np.uint16)
    return drawn


def _stored(plane: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """The organisers' grey values, some of them off by one, and a few stray ones."""
    stored = np.zeros(plane.shape, dtype=np.uint8)
    for value, grey in _STORED.items():
        stored[plane == value] = grey
    shifted = (random.random(plane.shape) < 0.02) & (stored > 0)
    stored[shifted] -= 1
    stored[0, :3] = _STRAY
    return stored
