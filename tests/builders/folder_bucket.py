"""A local folder in place of the bucket `s3://bkt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.storage.local import LocalStore


class FolderBucket(LocalStore):
    def child(self, key: str) -> str:
        return f"s3://bkt/{key}"


def serve_as_bucket(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Resolve inputs `s3://bkt/KEY` to the files of `folder`."""
    for module in ("deploy.inputs.sources", "deploy.inputs.source_kinds"):
        monkeypatch.setattr(f"{module}.store_of", {"s3://bkt": FolderBucket(folder)}.__getitem__)
