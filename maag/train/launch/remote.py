"""Ray's checkpoints in a storage, and small files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os.path import abspath
from pathlib import Path

from pyarrow.fs import FileSystem, FileType, LocalFileSystem
from ray.train import Checkpoint, Result

from maag.errors import MaagError, StorageError
from maag.storage import replacing, storage_errors


def absolute_storage(storage: str) -> str:
    """A URI without a trailing slash; a folder as an absolute path, in which each node resolves links."""
    return storage.rstrip("/") if "://" in storage else abspath(storage)


def newest_checkpoint(place: str) -> Checkpoint | None:
    """The newest checkpoint of Ray Train's run at `place`, a URI or an absolute path; None if it has none.

    Raises StorageError if the storage cannot be read: starting over, or from an older state, would be wrong then.
    """
    with place_errors(place, "read"):
        filesystem, root = FileSystem.from_uri(place)
        # Ray treats a storage that does not answer like an empty one.
        if filesystem.get_file_info(root).type == FileType.NotFound:
            return None
        try:
            return Result.from_path(place).checkpoint
        except RuntimeError:  # the run has stored no checkpoint yet
            return None


@contextmanager
def place_errors(place: str, verb: str = "write") -> Iterator[None]:
    """`storage_errors` also for URIs, whose errors have a message but no error number. Raises StorageError."""
    with storage_errors(Path(place), verb):
        try:
            yield
        except MaagError:
            raise
        except (OSError, ValueError) as error:  # ValueError: an invalid URI
            if "://" not in place:
                raise
            raise StorageError(
                f"cannot {verb} {place}: {' '.join(str(error).split())}; check the address, the network and the "
                "credentials"
            ) from error


def upload(folder: Path, names: Iterable[str], place: str) -> None:
    """Copy the files `names` that exist in `folder` to `place`, a URI or an absolute path.

    Raises StorageError.
    """
    with place_errors(place):
        filesystem, root = FileSystem.from_uri(place)
        for name in names:
            if (folder / name).is_file():
                target = f"{root}/{name}"
                if isinstance(filesystem, LocalFileSystem):  # buckets need no folders
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                with filesystem.open_output_stream(target) as stream:
                    stream.write((folder / name).read_bytes())


def download(place: str, names: Iterable[str], folder: Path) -> None:
    """Copy the files `names` that exist at `place` to `folder`. Raises StorageError."""
    with place_errors(place, "read"):
        filesystem, root = FileSystem.from_uri(place)
        for name in names:
            if filesystem.get_file_info(f"{root}/{name}").type == FileType.File:
                with filesystem.open_input_stream(f"{root}/{name}") as stream:
                    content = stream.readall()
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)
