"""Where an export is written, and that no file of the user's is lost."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from tiny_artifact import write_tiny_artifact

from deploy.artifact.manifest import is_artifact, load_manifest, sha256_of
from deploy.exporting.artifact_folder import building_artifact
from deploy.exporting.companions import write_companions
from deploy.exporting.triton import write_repository
from maag.errors import StorageError


def export_to(out: Path) -> None:
    """All that `maag export --triton` writes."""
    with building_artifact(out) as folder:
        write_companions(folder, write_tiny_artifact(folder))
    write_repository(out, load_manifest(out))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    export_to(tmp_path / "models" / "one")
    return tmp_path / "models" / "one"


def test_an_older_export_is_replaced_completely(artifact: Path) -> None:
    path = artifact / "manifest.json"
    plain = json.loads(path.read_text())
    plain["files"]["model.fp16.engine"] = "00"
    path.write_text(json.dumps({**plain, "format_version": 1}))
    (artifact / "model.fp16.engine").write_text("old")
    (artifact / ".maag-export.0123abcd.tmp").mkdir()  # of an export that was killed
    (artifact / ".maag-export.0123abcd.tmp" / "model.onnx").write_text("half")
    with building_artifact(artifact) as folder:
        write_tiny_artifact(folder)
    assert {item.name for item in artifact.iterdir()} == {"manifest.json", "model.onnx"}
    assert load_manifest(artifact).files.keys() == {"model.onnx"}
    assert list(artifact.parent.iterdir()) == [artifact]


@pytest.mark.parametrize("name", ["labels/a.nii.gz", "notes.txt", "triton/mine/config.pbtxt", ".hidden"])
def test_an_export_that_holds_a_user_file_is_not_replaced(artifact: Path, name: str) -> None:
    (artifact / name).parent.mkdir(exist_ok=True, parents=True)
    (artifact / name).write_text("years of work")
    before = names(artifact)
    with pytest.raises(StorageError, match=f"cannot replace the exported model in .*{name} is not part of it"):
        export_to(artifact)
    assert names(artifact) == before


def test_a_file_added_during_the_export_is_kept(artifact: Path) -> None:
    before = names(artifact)

    def export_slowly() -> None:
        with building_artifact(artifact) as folder:
            write_tiny_artifact(folder)
            (artifact / "notes.txt").write_text("years of work")

    with pytest.raises(StorageError, match=r"notes\.txt is not part of it"):
        export_slowly()
    assert names(artifact) == {*before, "notes.txt"}


OF_ANOTHER_PROGRAM = '{"format_version": 1, "files": {"thesis.txt": "00"}, "source": {"url": "https://example.org"}}'


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"manifest_version": 3, "name": "an extension of a browser"}', OF_ANOTHER_PROGRAM]
)
def test_a_folder_that_is_not_an_export_is_not_replaced(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    if content:
        (tmp_path / "manifest.json").write_text(content)
    before = names(tmp_path)
    with pytest.raises(StorageError, match="holds other files"):
        export_to(tmp_path)
    assert names(tmp_path) == before


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(StorageError, match="not a folder"):
        export_to(tmp_path / "model")


def test_a_failed_build_keeps_the_older_export(artifact: Path) -> None:
    before = names(artifact)

    def fail() -> None:
        with building_artifact(artifact) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    load_manifest(artifact)
    assert names(artifact) == before
    assert list(artifact.parent.iterdir()) == [artifact]


@pytest.mark.parametrize("renames", range(12))
def test_an_interrupted_replacement_never_leaves_a_partial_artifact(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    remaining = renames
    rename = os.rename

    def interrupted_rename(source: Path, target: Path) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise KeyboardInterrupt
        rename(source, target)

    def export_another() -> None:
        with building_artifact(artifact) as folder:
            write_tiny_artifact(folder)
            (folder / "model.onnx").write_bytes(b"another")
            plain = json.loads((folder / "manifest.json").read_text())
            plain["files"]["model.onnx"] = sha256_of(folder / "model.onnx")
            (folder / "manifest.json").write_text(json.dumps(plain))

    monkeypatch.setattr(os, "rename", interrupted_rename)
    with contextlib.suppress(KeyboardInterrupt):
        export_another()
    if is_artifact(artifact):
        load_manifest(artifact)


def test_an_export_can_be_repeated_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        export_to(Path("."))
        assert {"manifest.json", "model.onnx", "model_card.md"} <= {item.name for item in Path(".").iterdir()}


def test_an_export_to_a_link_writes_its_target_and_keeps_the_link(artifact: Path, tmp_path: Path) -> None:
    for name, target in (("link", artifact), ("to-a-new-one", tmp_path / "new")):
        (tmp_path / name).symlink_to(target)
        export_to(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        load_manifest(target)
    assert {item.name for item in tmp_path.iterdir()} == {"models", "link", "new", "to-a-new-one"}


def test_an_export_that_holds_a_user_link_to_a_folder_is_not_replaced(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (artifact / "data").symlink_to(tmp_path / "data")
    with pytest.raises(StorageError, match=r"cannot replace the exported model in .*data is not part of it"):
        export_to(artifact)
    assert (artifact / "data").is_symlink()
