"""Text and CSV files that users keep beside their data, from any program."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from maag.errors import DataError
from maag.storage import storage_errors


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte-order mark.

    Raises:
        DataError: another encoding.
        StorageError: the file cannot be read.
    """
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} ({content[error.start]:#x}) is not UTF-8; save it as UTF-8, "
            'which Excel calls "CSV UTF-8"'
        ) from error
    if "\0" in text:
        raise DataError(f"{path}: has zero bytes, like UTF-16; save it as UTF-8")
    return text.splitlines()


def read_table(path: Path) -> tuple[tuple[str, ...], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a CSV file, and its rows by column with their line numbers; cells are stripped.

    Raises:
        DataError: as `read_lines`, not CSV, or two columns of one name; while iterating, a row with more cells than
            columns.
        StorageError: the file cannot be read.
    """
    try:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(read_lines(path))] or [[]]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table ({error}); save it as CSV with commas") from error
    double = next((name for place, name in enumerate(header) if name and name in header[:place]), None)
    if double is not None:
        raise DataError(f"{path}: column {double} is there twice, and only one would count; rename or remove one")
    return tuple(header), (
        (number, _cells(path, number, header, row)) for number, row in enumerate(rows, 2) if any(row)
    )


def _cells(path: Path, number: int, header: list[str], row: list[str]) -> dict[str, str]:
    while len(row) > len(header) and not row[-1]:
        row = row[:-1]
    if len(row) > len(header):
        raise DataError(
            f"{path}, line {number}: {len(row)} cells for {len(header)} columns; put a cell with a comma in quotes"
        )
    return dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
