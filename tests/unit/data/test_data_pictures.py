"""Pictures and their labels, including large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maag.data.files.label_files import load_image, load_label_file
from maag.data.files.pictures import load_picture, save_indices
from maag.errors import DataError


@pytest.mark.slow
def test_large_label_pictures_that_are_mostly_background_are_read(tmp_path: Path) -> None:
    labels = np.zeros((4000, 6000), np.uint8)
    labels[1500:2500, 2000:3000] = 1
    path = tmp_path / "labels.png"
    save_indices(path, labels)
    np.testing.assert_array_equal(load_label_file(path, (0, 1))[0], labels)
    with pytest.raises(DataError, match="claim 6000 x 4000 pixels"):
        load_image([path])


def test_a_grey_picture_with_alpha_is_read_as_grey(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(np.stack([grey, np.full_like(grey, 128)], -1), "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png").voxels, grey[None, None])


def test_a_palette_that_exchanges_labels_is_refused(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4], labels[5:] = 1, 2
    path = tmp_path / "labels.png"
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 255, 0, 0, 127, 127, 127])  # colours for the eye
    picture.save(path)
    np.testing.assert_array_equal(load_label_file(path, range(3))[0], labels)
    picture = Image.fromarray(2 - labels)
    picture.putpalette([2, 2, 2, 1, 1, 1, 0, 0, 0])  # looks like `labels`
    picture.save(path)
    with pytest.raises(DataError, match=r"labels\.png: its palette shows the labels in another order"):
        load_label_file(path, range(3))
