"""Transfer of a run folder between the user's machine, the shared storage, and the workers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from ray.train import Checkpoint

from maag import checkpoint
from maag.storage import replacing, storage_errors
from maag.train.folder import RunFolder

OWN_STORAGE = "cluster"
"""Folder in the run folder for Ray's checkpoints if no other storage is given."""
FolderFiles = dict[str, bytes]
"""Contents of the files of a run folder, by relative path."""


def files_of(run: RunFolder) -> FolderFiles:
    """All files of the run folder except Ray's checkpoints."""
    own = run.path / OWN_STORAGE
    return {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in sorted(run.path.rglob("*"))
        if file.is_file() and own not in file.parents and not file.name.startswith(".")
    }


def write_files(run: RunFolder, files: FolderFiles) -> None:
    """Write the files to an empty run folder."""
    for name, content in files.items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(content)


def follow(run: RunFolder, stored: Checkpoint) -> None:
    """Update the run folder from a checkpoint, each file atomically. Raises StorageError."""
    with tempfile.TemporaryDirectory(prefix="maag-run-") as folder:
        with storage_errors(Path(stored.path), "read"):
            stored.to_directory(folder)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                with replacing(run.path / file.relative_to(folder)) as temporary:
                    temporary.write_bytes(file.read_bytes())


def step_of(stored: Checkpoint) -> int:
    """The training step of a checkpoint that maag stored."""
    return int(Path(stored.path).name.split("-")[1])


def saved_step(run: RunFolder) -> int:
    """The training step of the state in a run folder; -1 if there is none. Raises CheckpointError."""
    if not run.last.exists():
        return -1
    _, state = checkpoint.load_state(run.last, torch.device("cpu"))
    return int(state["progress"]["step"])
