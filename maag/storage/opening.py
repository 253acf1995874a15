"""Open the store of a path or URI."""

from __future__ import annotations

from pathlib import Path

from maag.errors import StorageError
from maag.storage.keys import file_path, is_uri, split_uri
from maag.storage.retries import Retries
from maag.storage.store import Store


def open_store(place: str, retries: Retries | None = None) -> Store:
    """The store at `s3://bucket/prefix`, `gs://…`, `az://container/…`, `file:///…` or a path; sends no request yet.

    Raises:
        ConfigError: the scheme is unknown or no bucket is named.
        StorageError: the package for that storage is not installed.
    """
    from maag.storage.local import LocalStore

    if not is_uri(place):
        return LocalStore(Path(place))
    root, prefix = split_uri(place)
    scheme, _, bucket = root.partition("://")
    prefix = prefix.rstrip("/")
    retries = retries or Retries()
    if scheme == "file":
        return LocalStore(file_path(place))
    if scheme == "s3":
        from maag.storage.s3 import S3Store

        return S3Store(bucket, prefix, retries)
    try:
        if scheme == "gs":
            from maag.storage.gs import GsStore

            return GsStore(bucket, prefix, retries)
        from maag.storage.az import AzStore

        return AzStore(bucket, prefix, retries)
    except ImportError as error:
        extra = {"gs": "gs", "az": "azure"}[scheme]
        raise StorageError(f"{place} needs a package that is not installed; run pip install 'maag[{extra}]'") from error
