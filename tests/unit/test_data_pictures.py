"""Pictures and their labels, large ones among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maag.data.label_files import load_image, load_label_file
from maag.data.pictures import save_indices
from maag.errors import DataError


def test_labels_of_a_large_picture_may_be_nearly_all_background(tmp_path: Path) -> None:
    labels = np.zeros((4000, 6000), np.uint8)
    labels[1500:2500, 2000:3000] = 1
    path = tmp_path / "labels.png"
    save_indices(path, labels)
    np.testing.assert_array_equal(load_label_file(path, (0, 1))[0], labels)
    with pytest.raises(DataError, match="claim 6000 x 4000 pixels"):
        load_image([path])
