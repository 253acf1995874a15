"""A folder that stands for the bucket `s3://bkt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.storage.local import LocalStore


class Bucket(LocalStore):
    def child(self, key: str) -> str:
        return f"s3://bkt/{key}"


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let inputs `s3://bkt/KEY` be the files of `folder`."""
    for module in ("deploy.inputs.sources", "deploy.inputs.source_kinds"):
        monkeypatch.setattr(f"{module}.store_of", {"s3://bkt": Bucket(folder)}.__getitem__)
