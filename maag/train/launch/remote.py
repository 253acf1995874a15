"""Small files beside what Ray keeps in a storage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from maag.storage import replacing, storage_errors


def absolute_storage(storage: str) -> str:
    """A URI as it is, without a slash at its end; a folder as an absolute path."""
    return storage.rstrip("/") if "://" in storage else str(Path(storage).resolve())


def upload(folder: Path, names: Iterable[str], place: str) -> None:
    """Copy those of the files `names` that are in `folder` to `place`, a URI or an absolute path.

    Raises StorageError.
    """
    with storage_errors(Path(place)):
        filesystem, root = FileSystem.from_uri(place)
        for name in names:
            if (folder / name).is_file():
                target = f"{root}/{name}"
                if isinstance(filesystem, LocalFileSystem):  # buckets need no folders
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                with filesystem.open_output_stream(target) as stream:
                    stream.write((folder / name).read_bytes())


def download(place: str, names: Iterable[str], folder: Path) -> None:
    """Copy those of the files `names` that are at `place` to `folder`. Raises StorageError."""
    with storage_errors(Path(place), "read"):
        filesystem, root = FileSystem.from_uri(place)
        for name in names:
            if filesystem.get_file_info(f"{root}/{name}").type == FileType.File:
                with filesystem.open_input_stream(f"{root}/{name}") as stream:
                    content = stream.readall()
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)
