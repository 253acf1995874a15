"""Google's and Azure's stores, whose clients cloudpathlib builds."""

from __future__ import annotations

from maag.errors import StorageError
from maag.storage.retries import Retries
from maag.storage.stores import Store


def open_cloud(scheme: str, bucket: str, prefix: str, retries: Retries) -> Store:
    """A store at `gs://` or `az://`. Raises StorageError where the package for it is not installed."""
    raise StorageError(scheme)
