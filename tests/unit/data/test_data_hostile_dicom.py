"""Broken DICOM is reported in one sentence, and no slice is left out of its series."""

from __future__ import annotations

import importlib
import logging
import struct
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hostile_files import write_dicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from deploy.inputs.images import find_images
from maag.data.files.dicom_file import quiet_pydicom, series_uid
from maag.data.files.dicom_series import load_series
from maag.errors import DataError


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels"),
        ({"Rows": 6000, "Columns": 6000}, "cannot be decoded"),
        ({"PixelData": None}, "without pixel data"),
        ({"Columns": 9}, r"cannot be decoded .*; copy or export it again"),
        ({"NumberOfFrames": 2, "Rows": 3}, "holds 2 frames, but each file must hold one grey slice"),
        ({"NumberOfFrames": 2, "Rows": 3, "PixelSpacing": None}, "holds 2 frames, .* enhanced"),
        ({"SamplesPerPixel": 3}, "cannot be decoded"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing 0 x 1 mm"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two perpendicular unit vectors"),
        ({"ImagePositionPatient": None}, "DICOM without ImagePositionPatient"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}, "NaN or infinite"),
    ],
)
def test_a_broken_slice_is_reported_by_name_in_one_line(tmp_path: Path, tags: dict[str, Any], sentence: str) -> None:
    path = write_dicom(tmp_path / "x.dcm", **tags)
    with pytest.raises(DataError, match=sentence) as caught:
        load_series([path])
    assert "x.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_a_missing_or_failing_codec_is_reported(tmp_path: Path, syntax: str) -> None:
    path = write_dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"nothing of the kind"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    with pytest.raises(DataError, match=r"cannot be decoded .* export the series uncompressed, or .*python-gdcm"):
        load_series([path])


def test_a_slice_with_a_damaged_header_makes_its_series_fail(tmp_path: Path) -> None:
    intact = write_dicom(tmp_path / "in" / "a.dcm").read_bytes()
    offset = intact.index(struct.pack("<HHI", 0x28, 0x10, 2))
    (tmp_path / "in" / "b.dcm").write_bytes(intact[:offset] + struct.pack("<HHI", 0x28, 0x10, 1) + intact[offset + 8 :])
    assert series_uid(tmp_path / "in" / "b.dcm") == "unreadable"
    (found,) = find_images(tmp_path / "in")
    with pytest.raises(DataError, match=r"b\.dcm"):
        next(found.frames())


@pytest.mark.parametrize("content", [b"", b"cut off", b"<html>503</html>" * 20])
def test_a_dcm_file_that_is_not_dicom_makes_its_series_fail(tmp_path: Path, content: bytes) -> None:
    write_dicom(tmp_path / "in" / "a.dcm")
    (tmp_path / "in" / "b.dcm").write_bytes(content)
    (tmp_path / "in" / "notes").write_bytes(content)
    (found,) = find_images(tmp_path / "in")
    with pytest.raises(DataError, match=r"b\.dcm: not a readable DICOM file"):
        next(found.frames())


def test_every_logger_of_pydicom_is_silent_while_files_are_read(caplog: pytest.LogCaptureFixture) -> None:
    importlib.import_module("pydicom.pixels")
    known = logging.root.manager.loggerDict.values()
    loggers = [each for each in known if isinstance(each, logging.Logger) and each.name.split(".")[0] == "pydicom"]
    with quiet_pydicom():
        for logger in loggers:
            logger.warning("inside")
    assert not caplog.records
    for logger in loggers:
        logger.warning("outside")
    assert len(caplog.records) == len(loggers) > 1
