"""Synthetic pedestrians in PPSS's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from maag.data.phantoms.dicom_files import save_png
from maag.data.phantoms.ppss_palette import COLOURS, INDICES
from maag.errors import ConfigError
from maag.storage import replacing

_HAIR, _FACE, _UPPER, _LOWER, _ARMS, _LEGS, _SHOES = range(1, 8)
_ROWS, _COLUMNS = 160, 80
_IMAGE_SIZE = (120, 240)  # unlike the masks', as in the real data
_FRAMES = 3
_MOST_VIDEOS = 100
"""Videos for training must not be numbered above 100."""
_SKIN = (np.array([205, 160, 130]), np.array([120, 80, 60]))


def write_videos(out: Path, num_cases: int, seed: int) -> None:
    """Write `num_cases` videos of a few pictures each, every fourth one numbered above 100, for testing.

    Masks have the real palette; the first of each video is RGB. Same seed, same bytes.

    Raises:
        ConfigError: more than 100 videos.
        StorageError: `out` cannot be written.
    """
    if num_cases > _MOST_VIDEOS:
        raise ConfigError(f"{num_cases} videos: the phantom in PPSS's layout has {_MOST_VIDEOS} at most; ask for fewer")
    for number in range(num_cases):
        video = 101 + number // 4 if number % 4 == 3 else 1 + number
        random = np.random.default_rng([seed, number])
        scene = _draw_scene(random)
        clothes, skin = _draw_colours(random)
        for frame in range(_FRAMES):
            stem = f"{281 + 50 * number:04}_{1 + 7 * frame}"
            labels = _draw_person(random)
            picture = _paint(labels, scene, clothes, skin, random)
            with replacing(out / str(video) / f"{stem}.jpg") as temporary:
                picture.save(temporary, format="jpeg", quality=92)
            save_png(out / str(video) / f"{stem}_m.png", _with_palette(labels, as_rgb=frame == 0))


def draw_picture(random: np.random.Generator) -> NDArray[np.float32]:
    """A walking pedestrian, (3, 160, 80) in [0, 255]."""
    scene = _draw_scene(random)
    clothes, skin = _draw_colours(random)
    picture = _paint(_draw_person(random), scene, clothes, skin, random)
    small = picture.resize((_COLUMNS, _ROWS), Image.Resampling.BICUBIC)
    return np.moveaxis(np.asarray(small, dtype=np.float32), 2, 0)


def _draw_colours(random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Colours of three pieces of clothing (3, 3), and of the skin (3,)."""
    return random.integers(20, 236, size=(3, 3)), _SKIN[0] + random.random() * (_SKIN[1] - _SKIN[0])


def _draw_person(random: np.random.Generator) -> NDArray[np.uint8]:
    """Labels (160, 80) of a walking pedestrian."""
    middle, top = 40 + random.uniform(-5, 5), 12 + random.uniform(-4, 4)
    size = random.uniform(0.9, 1.1)
    stride, swing = random.uniform(-9, 9), random.uniform(-8, 8)
    canvas = Image.new("L", (_COLUMNS, _ROWS), 0)
    draw = ImageDraw.Draw(canvas)

    def at(x: float, y: float) -> tuple[float, float]:
        return middle + size * x, top + size * y

    for side in (-1, 1):
        foot = at(side * 5 + side * stride, 130)
        draw.line([at(side * 4, 95), foot], fill=_LEGS, width=round(8 * size))
        draw.ellipse([foot[0] - 6, foot[1] - 3, foot[0] + 6, foot[1] + 4], fill=_SHOES)
    draw.polygon([at(-11, 64), at(11, 64), at(11 + abs(stride) / 2, 104), at(-11 - abs(stride) / 2, 104)], fill=_LOWER)
    for side in (-1, 1):
        draw.line([at(side * 12, 30), at(side * (15 + side * swing / 2), 66)], fill=_ARMS, width=round(6 * size))
    draw.polygon([at(-13, 25), at(13, 25), at(11, 68), at(-11, 68)], fill=_UPPER)
    draw.ellipse([*at(-9, 0), *at(9, 22)], fill=_HAIR)
    draw.ellipse([*at(-6, 6), *at(6, 24)], fill=_FACE)
    return np.asarray(canvas, dtype=np.uint8)


def _draw_scene(random: np.random.Generator) -> NDArray[np.float64]:
    """A street scene (160, 80, 3): walls, ground, blotches."""
    scene = np.empty((_ROWS, _COLUMNS, 3))
    scene[:] = random.uniform(60, 200, 3)
    scene[int(random.uniform(80, 120)) :] = random.uniform(60, 180, 3)
    scene[:, int(random.uniform(0, 60)) :][:, :12] += random.uniform(-50, 50, 3)
    for channel in range(3):
        scene[..., channel] += gaussian_filter(random.normal(0, 250, (_ROWS, _COLUMNS)), 6)
    return scene


def _paint(
    labels: NDArray[np.uint8],
    scene: NDArray[np.float64],
    clothes: NDArray[np.int64],
    skin: NDArray[np.float64],
    random: np.random.Generator,
) -> Image.Image:
    colours = {
        _HAIR: np.array([40, 30, 25]), _FACE: skin, _UPPER: clothes[0], _LOWER: clothes[1],
        _ARMS: skin if clothes[0][0] % 2 else clothes[0] * 0.9, _LEGS: skin * 0.95, _SHOES: clothes[2] * 0.4,
    }  # fmt: skip
    painted = scene.copy()
    for value, colour in colours.items():
        painted[labels == value] = colour
    shade = 1 + gaussian_filter(random.normal(0, 1.2, labels.shape), 5)
    painted = gaussian_filter(painted * shade[..., None], (0.6, 0.6, 0)) + random.normal(0, 7, painted.shape)
    picture = Image.fromarray(np.clip(painted, 0, 255).astype(np.uint8))
    return picture.resize(_IMAGE_SIZE, Image.Resampling.BICUBIC)


def _with_palette(labels: NDArray[np.uint8], *, as_rgb: bool) -> Image.Image:
    """Masks with the real files' palette: eight of the 64 colours of MATLAB's jet."""
    image = Image.fromarray(np.array(INDICES, dtype=np.uint8)[labels])
    image.putpalette(_palette())
    return image.convert("RGB") if as_rgb else image


def _palette() -> list[int]:
    palette = np.zeros((256, 3), dtype=np.uint8)
    for index, colour in zip(INDICES, COLOURS, strict=True):
        palette[index] = colour
    return palette.ravel().tolist()
