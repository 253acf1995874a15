"""Broken pictures are refused in one sentence; unusual ones are read as displayed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import png_of_claimed_size
from PIL import Image

from maag.data.files.label_files import geometry_of
from maag.data.files.pictures import load_picture
from maag.errors import DataError


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


GREY = Image.new("L", (5, 4), 7)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.png", png_of_claimed_size(60000, 60000), "more than 89478485 pixels"),
        ("x.png", png_of_claimed_size(10000, 10000), "more than 89478485 pixels"),
        ("x.png", png_of_claimed_size(9000, 9000), "claim 9000 x 9000 pixels"),
        ("x.png", png_of_claimed_size(0, 10), "not a readable image"),
        ("x.png", b"", "not a readable image"),
        ("x.jpg", b"<html></html>", "not a readable image"),
        ("x.jpg", encoded(NOISE, "JPEG")[:900], "truncated"),
        ("x.tif", encoded(GREY, "TIFF", save_all=True, append_images=[GREY]), "holds 2 pictures"),
        ("x.png", encoded(GREY, "PNG", save_all=True, append_images=[Image.new("L", (5, 4))]), "holds 2 pictures"),
        ("x.tif", encoded(Image.fromarray(np.full((4, 5), np.nan, np.float32)), "TIFF"), "NaN or infinite"),
    ],
)
def test_a_broken_picture_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_picture(tmp_path / name)
    assert name in str(caught.value)


def test_16_bit_and_palette_pictures_are_read(tmp_path: Path) -> None:
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    (tmp_path / "deep.png").write_bytes(encoded(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(load_picture(tmp_path / "deep.png").voxels[0, 0], deep)
    (tmp_path / "palette.png").write_bytes(encoded(NOISE.quantize(16), "PNG"))
    assert load_picture(tmp_path / "palette.png").voxels.shape == (3, 1, 60, 60)


@pytest.mark.parametrize(("name", "form"), [("x.jpg", "JPEG"), ("x.png", "PNG"), ("x.tif", "TIFF")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_a_picture_is_applied(tmp_path: Path, name: str, form: str, orientation: int) -> None:
    shown = np.kron([[0, 250, 0], [0, 0, 120]], np.ones((8, 8))).astype(np.uint8)
    stored = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
        5: shown.T, 6: np.rot90(shown), 7: shown[::-1, ::-1].T, 8: np.rot90(shown, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / name).write_bytes(encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif))
    np.testing.assert_allclose(load_picture(tmp_path / name).voxels[0, 0], shown, atol=20)
    assert geometry_of(tmp_path / name)[0] == (1, *shown.shape)
